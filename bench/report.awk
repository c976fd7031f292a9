# SPDX-License-Identifier: LGPL-2.1-or-later
# Tables, in Markdown, of what bench printed: the bars first, then every group.
BEGIN { FS = "\t" }
/^# / { machine = machine (machine ? "\n" : "") substr($0, 3); next }
$1 == "group" || NF < 13 { next }
{
	key = $1 SUBSEP $2 SUBSEP $3
	unit[key] = $4; samples[key] = $5; min[key] = $6; median[key] = $7
	over_min[key] = $8; over_median[key] = $9; floor_of[key] = $10; ratio_min[key] = $11; ratio_median[key] = $12
	note[key] = $13
	if (!($1 in group_seen)) { group_seen[$1] = 1; groups[++group_count] = $1 }
	if (!(($1, $2) in row_seen)) { row_seen[$1, $2] = 1; rows[$1, ++row_count[$1]] = $2 }
	if (!(($1, $3) in case_seen)) { case_seen[$1, $3] = 1; cases[$1, ++case_count[$1]] = $3 }
}
function number(x) {
	if (x == "-" || x == "") return "-"
	if (x == 0) return "0"
	if (x >= 1000 || x <= -1000) return sprintf("%d", x)
	if (x >= 100 || x <= -100) return sprintf("%.0f", x)
	if (x >= 10 || x <= -10) return sprintf("%.1f", x)
	return sprintf("%.2f", x)
}
# The first case that begins like that.
function find(group, row, prefix,    i) {
	for (i = 1; i <= case_count[group]; i++)
		if (index(cases[group, i], prefix) == 1 && ((group SUBSEP row SUBSEP cases[group, i]) in unit) &&
		    (prefix !~ /^all / || cases[group, i] ~ suffix))
			return group SUBSEP row SUBSEP cases[group, i]
	return ""
}
function verdict(least, middle, limit) {
	if (least == "-" || least == "") return "-"
	if (middle + 0 <= limit) return "yes"
	return least + 0 <= limit ? "by the minimum" : "no"
}
function bar(words, limit, what, group, row, which,    key, least, middle, shown) {
	key = find(group, row, which)
	if (key == "" || samples[key] + 0 == 0) {
		shown = key == "" ? "not run" : "skipped: " note[key]
		printf "| %s | %s | %s | - | - |\n", words, what, shown
		return
	}
	if (what ~ /×/) {
		least = ratio_min[key]; middle = ratio_median[key]
		shown = floor_of[key] == "-" ? "" : " × `" floor_of[key] "`"
	} else {
		least = min[key]; middle = median[key]
		shown = ""
	}
	# A difference between two noisy figures: its least is noise.
	if (row == "throughput loss")
		least = middle
	printf "| %s | %s | %s%s | %s | %s |\n", words, what, number(least), shown, number(middle),
		verdict(least, middle, limit)
}
function bars() {
	print "| bar | at most | measured: minimum | median | met |"
	print "|---|---|---|---|---|"
	bar("general registers, entry of one long instruction", 1.15, "1.15 ×", "hit", "gpr", "1 thread")
	bar("general registers, entry as compilers make it", 1.15, "1.15 ×", "hit", "gpr_prologue", "1 thread")
	bar("general registers, inside a function", 1.15, "1.15 ×", "hit", "gpr_middle", "1 thread")
	bar("`PATCH_REGS_ALL`", 1.3, "1.3 ×", "hit", "all", "1 thread")
	bar("counting probe", 1.5, "1.5 ×", "hit", "count_plain", "1 thread")
	bar("trap-resident probe", 1.15, "1.15 ×", "hit", "trap", "1 thread")
	suffix = "asleep"
	bar("make + commit, all entries, target asleep", 1.8, "1.8 µs", "install", "probe: make + commit", "all ")
	bar("the same, counting probes", 1.8, "1.8 µs", "install", "count: make + commit", "all ")
	suffix = "running"
	bar("make + commit, all entries, target running", 1.8, "1.8 µs", "install", "probe: make + commit", "all ")
	bar("the same, counting probes", 1.8, "1.8 µs", "install", "count: make + commit", "all ")
	bar("make + commit of one, another thread running", 60, "60 µs", "install",
			"probe: make + commit", "1, running")
	suffix = "asleep"
	bar("disable + unmake, all entries, target asleep", 1, "1 µs", "install", "probe: disable + unmake", "all ")
	suffix = "running"
	bar("disable + unmake, all entries, target running", 1, "1 µs", "install", "probe: disable + unmake", "all ")
	bar("resident bytes per patch", 256, "256", "size", "probe: resident", "")
	bar("the same, counting probes", 256, "256", "size", "count: resident", "")
	bar("mappings for all entries", 2000, "2000", "size", "probe: mappings", "")
	bar("throughput lost at 10 commits per second", 1, "1 %", "disturb", "throughput loss", "10 commits/s")
}
function cell(key) {
	if (!(key in unit)) return ""
	if (samples[key] + 0 == 0) return "-"
	if (samples[key] + 0 == 1) return number(min[key])
	return number(min[key]) " / " number(median[key])
}
function hit(    i, k, key, two) {
	print "Nanoseconds over the bare call, minimum / median, and how many times its floor that is (by minima).\n"
	print "| row | 1 thread | × | 2 threads | × | floor |"
	print "|---|---|---|---|---|---|"
	for (i = 1; i <= row_count["hit"]; i++) {
		key = "hit" SUBSEP rows["hit", i] SUBSEP "1 thread"
		two = "hit" SUBSEP rows["hit", i] SUBSEP "2 threads"
		if (samples[key] + 0 == 0)
			continue
		printf "| `%s` | %s / %s | %s | %s / %s | %s | %s |\n", rows["hit", i], number(over_min[key]),
			number(over_median[key]), number(ratio_min[key]), number(over_min[two]),
			number(over_median[two]), number(ratio_min[two]), 
				floor_of[key] == "-" ? "" : "`" floor_of[key] "`"
	}
}
# Rows by the cases that match a pattern.
function pivot(group, pattern,    i, k, key, any, line, used, columns) {
	columns = 0
	for (k = 1; k <= case_count[group]; k++) {
		if (cases[group, k] !~ pattern) continue
		any = 0
		for (i = 1; i <= row_count[group]; i++)
			any = any || samples[group, rows[group, i], cases[group, k]] + 0 > 0
		if (any) used[++columns] = cases[group, k]
	}
	if (columns == 0) return
	line = "| row | unit |"
	for (k = 1; k <= columns; k++) line = line " " used[k] " |"
	print line
	line = "|---|---|"
	for (k = 1; k <= columns; k++) line = line "---|"
	print line
	for (i = 1; i <= row_count[group]; i++) {
		line = ""; any = ""
		for (k = 1; k <= columns; k++) {
			key = group SUBSEP rows[group, i] SUBSEP used[k]
			if (samples[key] + 0 > 0) any = unit[key]
			line = line " " cell(key) " |"
		}
		if (any != "") printf "| %s | %s |%s\n", rows[group, i], any, line
	}
	print ""
}
function skipped(group,    i, k, key, told) {
	for (i = 1; i <= row_count[group]; i++)
		for (k = 1; k <= case_count[group]; k++) {
			key = group SUBSEP rows[group, i] SUBSEP cases[group, k]
			if ((key in unit) && samples[key] + 0 == 0 && told != rows[group, i] note[key]) {
				if (told == "") print "\nNot run:\n"
				told = rows[group, i] note[key]
				printf "- `%s`, %s: %s\n", rows[group, i], cases[group, k], note[key]
			}
		}
	print ""
}
END {
	sub(/^machine: /, "", machine)
	print "Machine: " machine ".\n"
	print "### Bars\n"
	bars()
	for (g = 1; g <= group_count; g++) {
		name = groups[g]
		title = name == "hit" ? "Cost of a hit" : name == "install" ? "Installing and removing" : \
			name == "disturb" ? "Disturbance" : name == "size" ? "Size" : name == "start" ? "Starting" : \
			name == "scale" ? "Scaling" : name
		print "\n### " title "\n"
		if (name == "hit") {
			hit()
		} else {
			print "Minimum / median.\n"
			if (name == "scale") {
				pivot(name, "patches$")
				pivot(name, "threads?$")
			} else if (name == "install") {
				pivot(name, "asleep$")
				pivot(name, "running$")
			} else {
				pivot(name, ".")
			}
		}
		skipped(name)
	}
}
