//! Things for real programs to work on: a repository, a database script, sources to compile.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::artifacts::root_dir;
use crate::command::Cmd;
use crate::program::compile;

/// The interpreter that `python3` leads to: the name may be a script that looks for one.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn python() -> String {
    Cmd::new(["python3", "-c", "import sys; print(sys.executable)"])
        .run()
        .success()
        .out()
        .trim_end()
        .to_owned()
}

/// Makes a git repository with this many commits.
///
/// # Panics
/// When git fails.
pub fn git_repository(dir: &Path, commits: usize) {
    let git = |words: &[&str]| {
        let date = "2024-01-02T03:04:05+00:00";
        Cmd::new(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"])
            .args(words)
            .dir(dir)
            .env("GIT_AUTHOR_DATE", date)
            .env("GIT_COMMITTER_DATE", date)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .run()
            .success()
    };
    let _ = git(&["init", "-q", "-b", "main"]);
    for commit in 0..commits {
        let mut text = String::new();
        for line in 0..200 {
            let _ = writeln!(text, "line {line} as of {}", if line % (commit + 2) == 0 { commit } else { 0 });
        }
        fs::write(dir.join(format!("file{}", commit % 7)), text).expect("a file of the repository");
        let _ = git(&["add", "."]);
        let _ = git(&["commit", "-q", "-m", &format!("Change number {commit}")]);
    }
}

/// A script for `sqlite3 :memory:` that makes tables, an index, joins and sorts.
#[must_use]
pub fn sqlite_script() -> String {
    let mut script = String::from(
        "create table person(id integer primary key, name text, age int);\n\
         create table likes(a int, b int);\ncreate index by_name on person(name);\nbegin;\n",
    );
    for i in 0..800 {
        let _ =
            writeln!(script, "insert into person values({i}, 'person {}', {});", (i * 7919) % 1009, i % 90);
        let _ = writeln!(script, "insert into likes values({i}, {});", (i * 31) % 800);
    }
    script += "commit;\n\
        select age, count(*), group_concat(name) from person group by age order by 2 desc, 1 limit 20;\n\
        select p.name, q.name from likes join person p on p.id = a join person q on q.id = b order by 1, 2 limit 50;\n\
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)\n\
        select sum(i), max(printf('%05d', i)) from n;\n\
        select json_group_array(name) from (select name from person order by name limit 100);\n";
    script
}

/// A perl program with nested data, closures, regular expressions and sorting.
pub const PERL: &str = r#"
my %seen;
for my $i (1 .. 4000) {
    my $word = join '', map { chr(97 + ($i * $_) % 26) } 1 .. 8;
    push @{ $seen{substr $word, 0, 2} }, { word => $word, at => $i, next => sub { $i + shift } };
}
my $total = 0;
for my $key (sort keys %seen) {
    my @list = sort { $a->{word} cmp $b->{word} } @{ $seen{$key} };
    $total += $_->{next}->(1) for grep { $_->{word} =~ /^(\w)\w+\1$/ } @list;
    printf "%s %d %s\n", $key, scalar @list, $list[0]{word};
}
print STDERR "total $total\n";
"#;

/// The C++ source that the benchmark compiles, with this many namespaces.
///
/// # Panics
/// When python3 fails or the file cannot be written.
pub fn cxx_source(path: &Path, namespaces: u32) {
    let generator = root_dir().join("scripts/benchmarks/workloads/src/gen_cxx.py");
    let made =
        Cmd::new(["python3".as_ref(), generator.as_os_str()]).arg(namespaces.to_string()).run().success();
    fs::write(path, made.stdout).expect("a C++ source");
}

/// A small crate without dependencies.
///
/// # Panics
/// When it cannot be written.
pub fn small_crate(dir: &Path) {
    fs::create_dir_all(dir.join("src")).expect("a folder for a crate");
    let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n";
    fs::write(dir.join("Cargo.toml"), manifest).expect("a manifest");
    let code = "fn main() {\n    let words: Vec<String> = (0..9).map(|i| format!(\"{i}\")).collect();\n    \
                println!(\"{}\", words.join(\" \"));\n}\n";
    fs::write(dir.join("src/main.rs"), code).expect("a source");
}

/// A workload of the benchmark, compiled.
#[must_use]
pub fn workload(name: &str) -> PathBuf {
    let source = root_dir().join("scripts/benchmarks/workloads/src").join(name);
    let compiler = if name.ends_with(".cpp") { "g++" } else { "gcc" };
    compile(compiler, &source, &["-O2", "-g", "-fomit-frame-pointer", "-pthread"])
}
