# Nested data, strings, closures, regular expressions and sorting.
use strict;
use warnings;
my $rounds = @ARGV ? shift : 6;
my $total = 0;
for my $round (1 .. $rounds) {
    my %by;
    for my $i (1 .. 40_000) {
        my $word = join '', map { chr(97 + ($i * $_) % 26) } 1 .. 7;
        push @{ $by{ substr $word, 0, 2 } }, { word => $word, at => $i, tags => [ "t$i", "u" . $i % 11 ] };
    }
    for my $key (sort keys %by) {
        my @list = sort { $a->{word} cmp $b->{word} } @{ $by{$key} };
        $total += grep { $_->{word} =~ /^(\w)\w+\1$/ } @list;
    }
}
print STDERR "SELF total=$total\n";
