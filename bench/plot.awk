# SPDX-License-Identifier: LGPL-2.1-or-later
# A picture, in SVG, of what a hit costs: the minima for one thread, over the bare call, on a logarithmic scale.
BEGIN { FS = "\t"; least = 0.25; most = 100000; left = 190; width = 620; height = 18 }
$1 == "hit" && $3 == "1 thread" && $8 != "-" && $2 !~ /bare/ && $2 != "disabled" {
	name[++count] = $2
	value[count] = $8 < least ? least : $8
	shown[count] = $8
}
function x(v) { return left + width * log(v / least) / log(most / least) }
END {
	bottom = 40 + count * height
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" " \
		"font-family=\"sans-serif\" font-size=\"12\">\n",
		left + width + 70, bottom + 40
	print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
	print "<text x=\"10\" y=\"20\" font-size=\"14\">Cost of a hit over the bare call, ns (minimum, 1 thread)</text>"
	for (v = 1; v <= most; v *= 10) {
		printf "<line x1=\"%.1f\" y1=\"32\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x(v), x(v), bottom
		printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">%d</text>\n",
			x(v), bottom + 16, v
	}
	for (i = 1; i <= count; i++) {
		y = 36 + (i - 1) * height
		colour = "#27b"
		if (name[i] ~ /^stub_/)
			colour = "#999"
		else if (name[i] ~ /^(uprobe|uretprobe|lttng|uftrace|gdb)/)
			colour = "#c60"
		printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 6, y + 12, name[i]
		printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, y + 2,
			x(value[i]) - left, height - 5, colour
		printf "<text x=\"%.1f\" y=\"%d\" fill=\"#333\">%.3g</text>\n", x(value[i]) + 4, y + 12, shown[i]
	}
	printf "<text x=\"%d\" y=\"%d\" fill=\"#555\">grey: written by hand. blue: libpatch. orange: others</text>\n",
		left, bottom + 32
	print "</svg>"
}
