# SPDX-License-Identifier: LGPL-2.1-or-later
# For perl.sh: a little of everything. Nothing here depends on the time of day, on addresses or on chance.
use strict;
use warnings;
use utf8;
binmode STDOUT, ':encoding(UTF-8)';
$| = 1;

sub section { print "== $_[0]\n" }

section 'numbers';
printf "%d %s %.10g %e %x %o %b %s\n", -7 / 2, 2**64, 1 / 3, 12345.678, 255, 8, 10, 1e1000;
print join(' ', map { $_ % 7 } -10 .. 10), ' ', 7 <=> 8, ' ', 0x7fffffffffffffff + 1, ' ', int(-3.7), ' ', 10 ** -3,
	"\n";
{ use integer; print -7 / 2, ' ', -7 % 3, "\n" }
printf "%.12f %.12f %.12f %.12f\n", sin(1), cos(1), atan2(1, 2), exp(1) * log(10) * sqrt(2);
print '0 but true' + 5, ' ', '3abc' * 1, "\n" if do { no warnings; 1 };
printf "%vd %s %s\n", '1.22.333', 1_000_000 ^ 0xffff, ~0 & 0xff00;

section 'strings';
my $text = 'The quick brown fox jumps over the lazy dog — naïve café, ΑΒΓ';
print length $text, ' ', uc $text, ' ', lcfirst $text, ' ', ucfirst lc $text, ' ', scalar reverse($text), "\n";
print join('|', split(/\W+/, $text)), ' ', index($text, 'fox'), ' ', rindex($text, 'o'), ' ', substr($text, -12, 4),
	"\n";
(my $copy = $text) =~ tr/a-zA-Z//cd;
substr($copy, 3, 5) = '<' . 'x' x 3 . '>';
print "$copy\n", sprintf('%-10s|%10s|%05d|%+.2f|%3$s', 'left', 'right', 42, 2.5), "\n";
print join(',', unpack('C* ', pack('w n N v V a5 A5 H4 q> d< Z*', 300, 1, 2, 3, 4, 'abc', 'de', 'beef', -2, 1.5,
	'zed'))), "\n";
print join(',', unpack('(A2)*', 'aabbccd')), ' ', unpack('%32C*', $copy), ' ', join(',', map { ord } split //,
	'aé€'), "\n";
my $string = 'Az'; $string++; my $zz = 'zZ9'; $zz++;
print "$string $zz ", quotemeta('a.b*c'), ' ', sprintf('%s', join ' ', map { sprintf '%03b', $_ } 0 .. 7), "\n";
vec(my $bits = '', 37, 4) = 11;
print unpack('b*', $bits), ' ', crypt('secret', '$1$salt$') // 'none', "\n";

section 'regular expressions';
my $count = () = $text =~ /o/g;
print "$count\n";
while ('k1=v1;k2="v;2";k3=' =~ /(?<key>\w+)=(?:"(?<value>[^"]*)"|(?<value>[^;]*))/g) {
	print "$+{key} -> $+{value} at $-[0]-$+[0]\n";
}
my $balanced = qr/\((?:[^()]++|(?R))*\)/;
print "balanced: $&\n" if 'x(a(b)(c(d)))y)' =~ $balanced;
(my $swapped = 'first second third') =~ s/(\w+) (\w+)/$2 $1/;
(my $sum = '1+2, 30+4') =~ s/(\d+)\+(\d+)/$1 + $2/ge;
print "$swapped $sum ", join('|', 'aXbXXc' =~ /[^X]+/g), ' ', 'foobar' =~ /foo(?=bar)(?!baz)/ ? 'ahead' : 'no', "\n";
print join(',', map { /^(?:1?|(11+?)\1+)$/ ? () : length } map { 1 x $_ } 1 .. 60), "\n";
print 'ab' x 300 . 'c' =~ /^(?:(?:ab)+)+$/ ? 'yes' : 'no', ' ', 'ÀÉ' =~ /^\p{Lu}+$/i ? 'upper' : 'no', "\n";
print join('|', split /(,)|-/, 'a,b-c', -1) =~ s/\|\|/|/gr, ' ', join('|', 'camelCaseString' =~ /[A-Z]?[a-z]+/g), "\n";
{ no warnings; my @trace; 'aaab' =~ /a+(?{ push @trace, pos })b(*FAIL)/; print "@trace\n" }

section 'lists and hashes';
my @list = map { ($_ * 7919) % 1009 } 1 .. 500;
print join(' ', (sort { $a <=> $b } @list)[0 .. 9]), ' ', join(' ', (reverse sort @list)[0 .. 5]), "\n";
my %hash = map { $_ => $_ ** 2 } @list;
delete @hash{grep { $_ % 2 } keys %hash};
print scalar(keys %hash), ' ', join(',', (sort { $hash{$a} <=> $hash{$b} || $a cmp $b } keys %hash)[-3 .. -1]), "\n";
my @spliced = splice(@list, 10, 5, 'a' .. 'h');
print "@spliced $#list ", join(' ', @list[8 .. 20]), ' ', exists $hash{nothing} ? 1 : 0, "\n";
my %deep;
push @{$deep{$_ % 5}{list}}, $_ for 1 .. 30;
print join(';', map { "$_=@{$deep{$_}{list}}" } sort keys %deep), "\n";
my ($first, @rest) = (1, 2, 3); ($first, $rest[0]) = ($rest[0], $first);
print "$first @rest ", wantarray() // 'undef', ' ', "@{[map { local $_ = $_; s/1/one/; $_ } 1 .. 3]}", "\n";
while (my ($index, $value) = each @rest) { print "$index:$value " }
print "\n";

section 'subroutines';
sub fibonacci { my $n = shift; $n < 2 ? $n : fibonacci($n - 1) + fibonacci($n - 2) }
print fibonacci(17), ' ';
sub counter { my $n = shift; return { up => sub { ++$n }, down => sub { --$n } } }
my $counter = counter(5);
$counter->{up}->() for 1 .. 3;
print $counter->{down}->(), ' ', join(',', map { $_->(3) } map { my $k = $_; sub { $k * $_[0] } } 1 .. 4), "\n";
sub context { wantarray ? 'list' : defined wantarray ? 'scalar' : 'void' }
my @c = context(); my $c = context();
print "$c[0] $c ", prototype('CORE::push') // 'none', ' ', eval 'my $x = 6; $x * 7', "\n";
eval { die { code => 42 } }; print "code $@->{code}\n";
eval { eval { die "inner\n" }; print "got $@"; die "outer\n" }; print "then $@";
eval { my $zero = 0; my $x = 1 / $zero }; print $@ =~ s/ at .*//sr, "\n";
eval 'this is not perl'; print $@ ? "syntax\n" : "no\n";
local $SIG{__WARN__} = sub { print "warned: ", $_[0] =~ s/ at .*//sr, "\n" }; warn 'careful';
my $u; { my $s = "x" . $u }
OUTER: for my $i (1 .. 5) { for my $j (1 .. 5) { next OUTER if $j > $i; last OUTER if $i * $j > 8; print $i * $j,
	' ' } }
print "\n";
sub deep { my $n = shift; $n ? deep($n - 1) + 1 : 0 } { no warnings 'recursion'; print deep(5000), "\n" }

section 'objects';
package Shape { sub new { my ($class, %args) = @_; bless {%args},
	$class } sub area { 0 } sub DESTROY { print "gone $_[0]{name}\n" }
	use overload '+' => sub { $_[0]->area + (ref $_[1] ? $_[1]->area : $_[1]) }, '""' => sub { "<$_[0]{name}>" },
		'<=>' => sub { my ($x, $y, $swap) = @_; $x = $x->area; $y = ref $y ? $y->area : $y;
			$swap ? $y <=> $x : $x <=> $y };
	our $AUTOLOAD; sub AUTOLOAD { my $name = $AUTOLOAD =~ s/.*:://r; return if $name eq 'DESTROY'; "auto $name" } }
package Square { our @ISA = ('Shape'); sub area { $_[0]{side} ** 2 } }
package Upper { sub TIESCALAR { my $v = $_[1]; bless \$v } sub FETCH { uc ${$_[0]} } sub STORE { ${$_[0]} = $_[1] } }
package main;
{
	my $square = Square->new(name => 'square', side => 3);
	my $shape = Shape->new(name => 'shape');
	print $square + $shape, ' ', $square + 1, " $square ", $square->wobble, ' ',
		$square->can('area') ? 'can' : 'cannot', ' ',
		$square->isa('Shape'), ' ', $shape < $square, "\n";
	tie my $tied, 'Upper', 'hello'; $tied = 'world'; print "$tied\n";
}

section 'files and processes';
open my $out, '>:utf8', 'file' or die; print {$out} "$text\n" x 200; printf {$out} "%s\n", 'end'; close $out;
open my $in, '<:utf8', 'file' or die; my $lines = 0; my $last; while (<$in>) { chomp; $lines++; $last = $_ } close $in;
print "$lines $last ", -s 'file', ' ', -e 'nothing' ? 1 : 0, ' ', -d '.', "\n";
open my $memory, '<', \"one\ntwo\nthree\n"; my @read = <$memory>; print scalar(@read), " $read[1]";
{ local $/ = ''; open my $p, '<', \"a\nb\n\n\nc\n"; print scalar(() = <$p>), "\n" }
mkdir 'directory'; rename 'file', 'directory/moved'; print join(' ', sort glob('*')), ' ', unlink('directory/moved'),
	"\n";
rmdir 'directory';
print 'shell says ', `echo hello; exit 3`, 'status ', $? >> 8, "\n";
pipe my $reader, my $writer;
my $child = fork;
if (!$child) { close $reader; print {$writer} fibonacci(12), " from the child\n"; close $writer; exit 5 }
waitpid $child, 0; close $writer; print 'status ', $? >> 8, ' ', <$reader>, "\n";
print 'system ', system('true'), ' ', system('sh', '-c', 'exit 2') >> 8, "\n";
{ local $SIG{USR1} = sub { print "signal $_[0]\n" }; kill 'USR1', $$; }
{ local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select undef, undef, undef, 10; }; print "timed out: $@" }
{ local $ENV{PROBED} = 'inherited'; print `echo \$PROBED` }
socketpair my $a_, my $b_, 1, 1, 0; syswrite $a_, 'over a socket'; sysread $b_, my $buffer, 100; print "$buffer\n";
print join(' ', (gmtime 86400 * 365)[3 .. 7]), ' ', scalar gmtime(1e9), "\n";

section 'format';
our ($name, $amount, $words) = ('apples', 3.14159, 'some words that are long enough to be broken into several lines');
format STDOUT =
@<<<<<<<<< @>>>>>> @|||||||||| @##.##
$name,     $name,  $name,      $amount
^<<<<<<<<<<<<<<<<<~~
$words
.
write;

section 'modules';
use List::Util qw(sum reduce first shuffle max uniq);
use Scalar::Util qw(blessed weaken reftype looks_like_number dualvar);
use POSIX qw(floor ceil strftime fmod strtol);
use Data::Dumper; use Storable qw(freeze thaw dclone); use Time::Local; use Text::Wrap; use File::Temp;
	use File::Spec; use Encode;
use Digest::MD5 qw(md5_hex); use Digest::SHA qw(sha256_hex); use MIME::Base64; use Math::BigInt; use Math::BigFloat;
	use JSON::PP;
$Data::Dumper::Sortkeys = 1; $Data::Dumper::Indent = 1;
print sum(1 .. 100), ' ', reduce { $a * $b } 1 .. 10; print ' ', first { $_ > 5 } 1 .. 10; print ' ', max(3, 9, 2),
	' ', uniq(1, 1, 2), "\n";
print Dumper({a => [1, 'two', undef], b => \'ref', c => {d => 1.5}}), Dumper(thaw freeze {x => [1 .. 3]});
print floor(-1.5), ' ', ceil(1.2), ' ', strftime('%Y-%m-%d %H:%M:%S', gmtime 1e9), ' ', fmod(7, 3), ' ', timegm(0, 0,
	0, 1, 0, 100), "\n";
print md5_hex('abc'), ' ', sha256_hex('abc'), ' ', encode_base64('some bytes'), length encode('UTF-16', $text), "\n";
print Math::BigInt->new(2)->bpow(200), ' ', Math::BigInt->new(50)->bfac, ' ', Math::BigFloat->new(2)->bsqrt(40), "\n";
my $json = JSON::PP->new->canonical; print $json->encode($json->decode('{"b":[1,2.5,"x\u00e9",null,true],"a":{}}')),
	"\n";
$Text::Wrap::columns = 30; print wrap('', '  ', $words x 2 . 'The quick brown fox jumps over the lazy dog'), "\n";
{ my @s = sort { $a <=> $b } shuffle 1 .. 50; print "@s[0 .. 4]\n" }
my $cycle = {}; $cycle->{self} = $cycle; weaken $cycle->{self}; print reftype($cycle), ' ',
	looks_like_number('1e5') ? 1 : 0, "\n";
END { print "end\n" }
exit 3;
