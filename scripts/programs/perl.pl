# Nested data, closures, regular expressions, sorting, sprintf, string eval, forked children, signals.
use strict;
use warnings;
use threads;
$| = 1;
my %seen;
for my $i (1 .. 20000) {
    my $word = join '', map { chr(97 + ($i * $_) % 26) } 1 .. 8;
    push @{ $seen{ substr $word, 0, 2 } }, { word => $word, at => $i, next => sub { $i + shift } };
}
my $total = 0;
for my $key (sort keys %seen) {
    my @list = sort { $a->{word} cmp $b->{word} } @{ $seen{$key} };
    $total += $_->{next}->(1) for grep { $_->{word} =~ /^(\w)\w+\1$/ } @list;
    printf "%s %d %s\n", $key, scalar @list, $list[0]{word};
}
for my $i (1 .. 500) { $total += eval "my \@a = map { \$_ * $i } 1 .. 20; scalar \@a" }
my @threads = map { my $n = $_; threads->create(sub { my %h; $h{"k$_"} = "v" x ($_ % 30) for 1 .. 5000 * $n; scalar keys %h }) } 1 .. 3;
print "thread: ", $_->join, "\n" for @threads;
for my $n (1 .. 20) {
    my $pid = open(my $pipe, '-|') // die;
    if (!$pid) { my @list = map { "child $n item $_" } 1 .. 500; print scalar(@list), "\n"; exit $n }
    my $said = <$pipe>;
    close $pipe;
    print "child said $said", "status ", $? >> 8, "\n";
}
local $SIG{ALRM} = sub { $total++ };
alarm 1;
select undef, undef, undef, 5;
print `echo from a shell; exit 4`, $? >> 8, "\n";
print STDERR "total $total\n";
kill 'TERM', $$;
sleep 9;
