//! The summary of a recording in one line.

use memscope_shared::model::{Process, Snapshot};

use super::digest::{self, Whole};
use super::format;

/// What `run` says of a recording: its totals, and those of the process image that allocated most, since a shell or a build tool
/// around the real work is not what anybody asks about. `None` where there is no image.
#[must_use]
pub fn line(snapshot: &Snapshot) -> Option<String> {
    let most = digest::by_allocated(&snapshot.processes).first().map(|&at| &snapshot.processes[at])?;
    let name = format::file_name(&most.exe);
    if snapshot.processes.len() == 1 {
        return Some(format!("{name}: {}", totals(most)));
    }
    let command = snapshot.command.first().map_or(name, |word| format::file_name(word));
    let whole = Whole::of(&snapshot.processes).text();
    Some(format!("{command}: {whole}; the largest, {name} (pid {}): {}", most.pid, totals(most)))
}

fn totals(process: &Process) -> String {
    let stats = &process.stats;
    let live = if digest::running(process) { "live so far" } else { "still live at the end" };
    format!(
        "{}, {}; at most {} at a time; {} ({}) {live}",
        format::counted(stats.total_allocations, "allocation"),
        format::bytes(stats.total_allocated),
        format::bytes(stats.peak_memory),
        format::counted(stats.active_allocations, "block"),
        format::bytes(stats.active_memory),
    )
}

#[cfg(test)]
mod tests {
    use memscope_shared::model::{Process, Snapshot, Stats};

    use super::line;

    fn process(pid: u32, exe: &str, allocations: u64, bytes: u64) -> Process {
        let stats = Stats { total_allocations: allocations, total_allocated: bytes, ..Stats::default() };
        Process { pid, exe: exe.to_owned(), stats, ..Process::default() }
    }

    #[test]
    fn one_process_is_named_alone() {
        let snapshot = Snapshot { processes: vec![process(7, "/bin/ls", 3, 50)], ..Snapshot::default() };
        let said = "ls: 3 allocations, 50 B; at most 0 B at a time; 0 blocks (0 B) still live at the end";
        assert_eq!(line(&snapshot).as_deref(), Some(said));
        assert_eq!(line(&Snapshot::default()), None);
    }

    #[test]
    fn of_several_the_sums_come_first() {
        let processes = vec![process(7, "/bin/dash", 1000, 50), process(8, "/usr/bin/ld.bfd", 234, 2048)];
        let snapshot =
            Snapshot { command: vec!["/usr/bin/g++".to_owned()], processes, ..Snapshot::default() };
        let said = line(&snapshot).unwrap_or_default();
        let begin = "g++: 2 process images, 1,234 allocations of 2.05 KiB in all; the largest, ld.bfd (pid 8): 234 allocations";
        assert!(said.starts_with(begin), "{said}");
    }
}
