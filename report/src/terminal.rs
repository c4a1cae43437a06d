//! The report in the terminal: totals, then the top call sites.

use std::io::{self, Write};

use memscope_shared::model::{Process, SiteStats, Snapshot, StackFrame, Unrecorded, Variable};

use super::digest::{self, Digest, Ranking, Site, Whole};
use super::format::{bytes, command_line, count, counted, duration, file_name, percent, utc};
use super::names;
use super::text::{broken, clipped, columns, harmless};

/// Narrower terminals get lines of this width.
const NARROWEST: usize = 60;
/// Process images that get a section of their own.
const SECTIONS: usize = 5;
/// Programs that are named of those that could not be recorded.
const UNRECORDED: usize = 10;
/// Named variables that are listed.
const VARIABLES: usize = 10;
/// Lines of a command.
const COMMAND: usize = 12;
/// Columns below which a module's name is not shortened but left out.
const MODULE: usize = 8;
/// Columns that a function's name keeps beside its place.
const FUNCTION: usize = 24;
/// Callers shown of a call site.
const CALLERS: usize = 3;

const RANKINGS: [Ranking; 4] = [Ranking::Peak, Ranking::Count, Ranking::Live, Ranking::Short];

/// Writes the report of a snapshot in lines of at most `width` columns.
///
/// # Errors
///
/// Those of `out`.
pub fn write(snapshot: &Snapshot, out: &mut impl Write, width: usize) -> io::Result<()> {
    let mut page = Page { out, width: width.max(NARROWEST) };
    match &snapshot.command[..] {
        [] => page.line(0, "memscope: a recording without a command")?,
        command => page.command("memscope: ", command)?,
    }
    let start = snapshot.processes.first().map_or(0, |process| process.start_time);
    let (reason, since) = (snapshot.incomplete_reason.as_deref(), snapshot.incomplete_since);
    if let Some(why) = digest::incomplete(snapshot.complete, reason, since, start) {
        page.wrapped(0, &format!("INCOMPLETE RECORDING: {why}."))?;
    }
    let order = digest::by_allocated(&snapshot.processes);
    match order.len() {
        0 => page.wrapped(0, "There is no process in this recording.")?,
        1 => {}
        _ => page.wrapped(
            0,
            &format!("{}; those that allocated most come first.", Whole::of(&snapshot.processes).text()),
        )?,
    }
    let sites = if order.len() > 1 { 5 } else { 10 };
    for &process in order.iter().take(SECTIONS) {
        page.process(snapshot, &snapshot.processes[process], sites)?;
    }
    if let Some(others) = order.get(SECTIONS..).filter(|others| !others.is_empty()) {
        page.blank()?;
        let allocated = others.iter().map(|&at| snapshot.processes[at].stats.total_allocated);
        let allocated = allocated.fold(0, u64::saturating_add);
        let others = match others.len() {
            1 => "1 other process that".to_owned(),
            n => format!("{} other processes that together", count(n as u64)),
        };
        page.wrapped(0, &format!("Not shown: {others} allocated {}.", bytes(allocated)))?;
    }
    page.unrecorded(&snapshot.unrecorded)
}

struct Page<'w, W> {
    out: &'w mut W,
    width: usize,
}

impl<W: Write> Page<'_, W> {
    fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    fn line(&mut self, indent: usize, text: &str) -> io::Result<()> {
        let text = clipped(&harmless(text), self.width - indent);
        writeln!(self.out, "{:indent$}{text}", "")
    }

    /// A text over as many lines as it needs.
    fn wrapped(&mut self, indent: usize, text: &str) -> io::Result<()> {
        self.hanging(&" ".repeat(indent), text)
    }

    /// A text over as many lines as it needs, all of them behind what stands before the first.
    fn hanging(&mut self, before: &str, text: &str) -> io::Result<()> {
        let indent = columns(before);
        for (at, line) in broken(&harmless(text), self.width - indent).iter().enumerate() {
            let before = if at == 0 { before } else { "" };
            writeln!(self.out, "{before:indent$}{line}")?;
        }
        Ok(())
    }

    /// A command, over as many lines as anybody reads.
    fn command(&mut self, before: &str, command: &[String]) -> io::Result<()> {
        let text = format!("{before}{}", command_line(command));
        let lines = broken(&harmless(&text), self.width);
        lines.iter().take(COMMAND).try_for_each(|line| self.line(0, line))?;
        match lines.len().saturating_sub(COMMAND) {
            0 => Ok(()),
            more => self.line(0, &format!("(and {})", counted(more as u64, "more line"))),
        }
    }

    fn process(&mut self, snapshot: &Snapshot, process: &Process, sites: usize) -> io::Result<()> {
        self.blank()?;
        self.line(0, &"─".repeat(self.width))?;
        self.wrapped(0, &format!("process {}  {}", process.pid, process.exe))?;
        if snapshot.processes.len() > 1 || process.args != snapshot.command {
            self.command("", &process.args)?;
        }
        let (started, ran) = (utc(process.start_time), duration(digest::ran(process)));
        self.wrapped(0, &format!("started {started}, ran {ran}, {}", digest::ended(process)))?;
        let (reason, since) = (process.incomplete_reason.as_deref(), process.incomplete_since);
        match digest::incomplete(process.complete, reason, since, process.start_time) {
            Some(why) => self.wrapped(0, &format!("INCOMPLETE: {why}."))?,
            None => {
                let whose = if snapshot.complete { "" } else { " of this process" };
                let far = if digest::running(process) { " so far" } else { "" };
                self.line(0, &format!("the recording{whose} is complete{far}"))?;
            }
        }
        if let Some(note) = digest::static_allocators(process) {
            self.wrapped(0, &format!("NOTE: {note}."))?;
        }
        self.totals(process)?;
        let digest = Digest::new(process);
        RANKINGS.iter().try_for_each(|&ranking| self.ranking(&digest, ranking, sites))?;
        self.variables(&process.variables)
    }

    /// What the program's named variables owned.
    fn variables(&mut self, variables: &[Variable]) -> io::Result<()> {
        if variables.is_empty() {
            return Ok(());
        }
        self.blank()?;
        let shown = variables.len().min(VARIABLES);
        let all = counted(variables.len() as u64, "variable");
        self.line(0, &format!("Named variables by their peak ({shown} of {all})"))?;
        for (rank, variable) in (1..).zip(variables.iter().take(VARIABLES)) {
            let blocks = counted(variable.allocations, "block");
            let live = match variable.active_allocations {
                0 => String::new(),
                live => format!(", {} still live", count(live)),
            };
            let peak = bytes(variable.peak_memory);
            let (sum, median) = (bytes(variable.allocated), duration(variable.lifetime_ns.p50));
            self.hanging(
                &format!("{rank:>3}. {peak:>12}  "),
                &format!("{blocks} of {sum} in all{live}; median lifetime {median}"),
            )?;
            let type_name = variable.type_name.as_ref().map_or_else(String::new, |name| format!(": {name}"));
            let scope = variable.scope_name.as_ref().map_or_else(String::new, |name| format!("  [{name}]"));
            self.line(7, &format!("{}{type_name}{scope}", variable.var_name))?;
        }
        Ok(())
    }

    /// What was started but could not be recorded.
    fn unrecorded(&mut self, programs: &[Unrecorded]) -> io::Result<()> {
        if programs.is_empty() {
            return Ok(());
        }
        self.blank()?;
        self.line(0, &format!("Not recorded: {}", counted(programs.len() as u64, "program")))?;
        for program in programs.iter().take(UNRECORDED) {
            let command = command_line(&program.args);
            self.wrapped(2, &format!("process {}  {command}: {}", program.pid, program.reason))?;
        }
        match programs.len().saturating_sub(UNRECORDED) {
            0 => Ok(()),
            more => self.line(2, &format!("and {} more", count(more as u64))),
        }
    }

    fn totals(&mut self, process: &Process) -> io::Result<()> {
        let stats = &process.stats;
        let after = duration(stats.peak_time.saturating_sub(process.start_time));
        let live = if digest::running(process) { "live so far" } else { "live at the end" };
        self.blank()?;
        let rows = [
            ("allocated", stats.total_allocations, stats.total_allocated, String::new()),
            ("freed", stats.total_deallocations, stats.total_deallocated, String::new()),
            (live, stats.active_allocations, stats.active_memory, String::new()),
            ("peak", stats.peak_allocations, stats.peak_memory, format!("{after} after the start")),
        ];
        self.table(&rows.map(|(name, blocks, size, note)| {
            [name.to_owned(), counted(blocks, "block"), bytes(size), format!("({} B)", count(size)), note]
        }))?;
        let rest = [
            (stats.reallocations, "reallocation"),
            (stats.failed_allocations, "failed call"),
            (stats.unknown_frees, "unknown free"),
            (stats.inherited_frees, "inherited free"),
            (stats.lost_events, "lost event"),
            (stats.threads, "thread"),
        ];
        let rest: Vec<String> = rest.iter().map(|&(n, noun)| counted(n, noun)).collect();
        self.wrapped(2, &rest.join(", "))
    }

    /// The totals: name, blocks, size, exact size, note. What has no room beside the rest stands below it.
    fn table(&mut self, rows: &[[String; 5]]) -> io::Result<()> {
        let widest = |at: usize| rows.iter().map(|row| columns(&row[at])).max().unwrap_or(0);
        let [name, blocks, size, exact, note] =
            [widest(0), 2 + widest(1), 2 + widest(2), widest(3), widest(4)];
        let roomy = [name.max(16), blocks.max(20), size.max(12), exact.max(18)];
        let needed = |cells: [usize; 4]| 2 + cells.iter().sum::<usize>() + 2;
        let fits = needed(roomy) + 2 + note <= self.width;
        let cells = if fits { roomy } else { [name, blocks, size, exact] };
        let beside = needed(cells) <= self.width;
        let [name, blocks, size, exact] = cells;
        for row in rows {
            let mut line = format!("  {:<name$}{:>blocks$}{:>size$}", row[0], row[1], row[2]);
            let mut below = Vec::new();
            for (text, width, room) in [(&row[3], exact, beside), (&row[4], 0, fits)] {
                if room {
                    line += &format!("  {text:<width$}");
                } else if !text.is_empty() {
                    below.push(text.as_str());
                }
            }
            self.line(0, line.trim_end())?;
            if !below.is_empty() {
                self.wrapped(2 + name + 2, &below.join("  "))?;
            }
        }
        Ok(())
    }

    fn ranking(&mut self, digest: &Digest<'_>, ranking: Ranking, limit: usize) -> io::Result<()> {
        let running = digest::running(digest.process);
        let (title, none) = match ranking {
            Ranking::Peak => ("memory live at the peak", "Nothing was live at the peak."),
            Ranking::Count => ("number of allocations", "There was no allocation."),
            Ranking::Allocated => ("bytes allocated", "There was no allocation."),
            Ranking::Live if running => ("memory live so far", "Nothing was live so far."),
            Ranking::Live => ("memory still live at the end", "Nothing was live at the end."),
            Ranking::Short => ("allocations that lived under 1 ms", "No allocation lived under 1 ms."),
        };
        self.blank()?;
        let top = digest.top_sites(ranking, limit);
        if top.is_empty() {
            return self.line(0, none);
        }
        let all = counted(digest.sites.len() as u64, "call site");
        self.wrapped(0, &format!("Top call sites by {title} ({} of {all})", top.len()))?;
        for (rank, site) in (1..).zip(top) {
            self.site(digest, ranking, rank, &digest.sites[site])?;
        }
        Ok(())
    }

    fn site(&mut self, digest: &Digest<'_>, ranking: Ranking, rank: usize, site: &Site) -> io::Result<()> {
        let value = ranking.value(&site.stats);
        let shown = match ranking {
            Ranking::Count | Ranking::Short => count(value),
            _ => bytes(value),
        };
        let share = percent(value, digest.total(ranking));
        let mut row = note(ranking, &site.stats);
        if site.stacks.len() > 1 {
            row += &format!("; the largest of {} stacks:", count(site.stacks.len() as u64));
        }
        self.hanging(&format!("{rank:>3}. {shown:>12} {share:>6}  "), &row)?;
        let Some(&top) = digest.top_stacks(site, ranking, 1).first() else { return Ok(()) };
        let stack = digest.stack(top);
        let Some(telling) = digest.telling(stack) else { return self.line(7, "(no stack)") };
        let frame = |index: u32| digest.process.frames.get(index as usize);
        if let Some(frame) = frame(stack.frames[telling]) {
            self.frame(7, "", digest.process, frame)?;
        }
        let tells = |index: &&u32| digest.plumbing.get(**index as usize) == Some(&false);
        let callers: Vec<u32> = stack.frames[telling + 1..].iter().filter(tells).copied().collect();
        for caller in callers.iter().take(CALLERS).filter_map(|&index| frame(index)) {
            self.frame(9, "← ", digest.process, caller)?;
        }
        match callers.len().saturating_sub(CALLERS) {
            0 if stack.truncated => self.line(9, "← (outer frames are missing)"),
            0 => Ok(()),
            more => self.line(9, &format!("← {}", counted(more as u64, "more caller"))),
        }
    }

    /// One frame in one line: the function gives way first.
    fn frame(&mut self, indent: usize, mark: &str, process: &Process, frame: &StackFrame) -> io::Result<()> {
        let function = match &frame.function {
            Some(name) => harmless(&names::short(name).unwrap_or_else(|| name.clone())),
            None => harmless(&digest::unnamed(process, frame)),
        };
        let room = self.width - indent - columns(mark);
        let place = place(frame, room - FUNCTION);
        let function = clipped(&function, room - columns(&place));
        self.line(indent, &format!("{mark}{function}{place}"))
    }
}

/// Where a frame lies, in at most so many columns: names give way, the line's number does not.
fn place(frame: &StackFrame, room: usize) -> String {
    let line = frame.line.map_or_else(String::new, |line| format!(":{line}"));
    let file = frame.file.as_ref().map_or_else(String::new, |file| {
        format!("  {}{line}", clipped(&harmless(file_name(file)), room.saturating_sub(2 + columns(&line))))
    });
    let rest = room.saturating_sub(columns(&file) + 4);
    let module = frame.module.as_ref().map(|module| harmless(file_name(module)));
    match module {
        Some(module) if columns(&module).min(MODULE) <= rest => {
            format!("{file}  [{}]", clipped(&module, rest))
        }
        _ => file,
    }
}

/// What else a row of a ranking says.
fn note(ranking: Ranking, stats: &SiteStats) -> String {
    let allocations = counted(stats.allocations, "allocation");
    match ranking {
        Ranking::Peak => format!("{allocations} of {} in all", bytes(stats.allocated)),
        Ranking::Count | Ranking::Allocated => {
            format!(
                "{}, {} on average",
                bytes(stats.allocated),
                bytes(stats.allocated / stats.allocations.max(1))
            )
        }
        Ranking::Live => format!("{} of {allocations}", counted(stats.active_allocations, "block")),
        Ranking::Short => format!("of {allocations}, mean lifetime {}", duration(stats.lifetime_ns.mean)),
    }
}

#[cfg(test)]
mod tests;
