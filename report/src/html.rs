//! The HTML report: one file that needs nothing else, neither a network nor a server.
//!
//! `assets/template.html` is the frame; style, scripts and data are put into it. A content security
//! policy in it forbids every load. The page builds what it shows from the JSON of [`data`], as text
//! nodes only, so a name is never markup.

mod data;
mod escape;

use std::io::{self, BufWriter, Write};

use memscope_shared::model::Snapshot;
use serde::Serialize;
use serde_json::Serializer;

use self::data::{Details, Limits, Recording};
use super::digest::{self, Digest};
use super::format;

const TEMPLATE: &str = include_str!("assets/template.html");
const STYLE: &str = include_str!("assets/report.css");

/// The page's scripts, in the order in which they run. They share one scope.
const SCRIPTS: [&str; 8] = [
    include_str!("assets/format.js"),
    include_str!("assets/dom.js"),
    include_str!("assets/data.js"),
    include_str!("assets/timeline.js"),
    include_str!("assets/frames.js"),
    include_str!("assets/sites.js"),
    include_str!("assets/panels.js"),
    include_str!("assets/main.js"),
];

/// Writes the report of a snapshot. Doesn't look at single allocations.
///
/// # Errors
///
/// Those of `out`.
pub fn write(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    let out = &mut BufWriter::new(out);
    // Text and the names of what stands between take turns.
    for (at, part) in TEMPLATE.split("@@").enumerate() {
        match part {
            text if at % 2 == 0 => out.write_all(text.as_bytes())?,
            "TITLE" => out.write_all(escape::text(&title(snapshot)).as_bytes())?,
            "STYLE" => out.write_all(STYLE.as_bytes())?,
            "DATA" => write_data(snapshot, out)?,
            "SCRIPT" => SCRIPTS.iter().try_for_each(|script| out.write_all(script.as_bytes()))?,
            other => unreachable!("the template asks for {other}"),
        }
    }
    out.flush()
}

fn title(snapshot: &Snapshot) -> String {
    match snapshot.command.first() {
        Some(program) => format!("{} · memscope", format::file_name(program)),
        None => "memscope".to_owned(),
    }
}

fn write_data(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    write_json("data-recording", &Recording::new(snapshot), out)?;
    let mut stacks = 0;
    for process in digest::by_allocated(&snapshot.processes) {
        let digest = Digest::new(&snapshot.processes[process]);
        let details = Details::new(&digest, Limits::after(stacks));
        stacks += details.stacks();
        write_json(&format!("data-{process}"), &details, out)?;
    }
    Ok(())
}

fn write_json(id: &str, value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    write!(out, "<script type=\"application/json\" id=\"{id}\">")?;
    value.serialize(&mut Serializer::with_formatter(&mut *out, escape::Inert)).map_err(io::Error::from)?;
    out.write_all(b"</script>\n")
}

#[cfg(test)]
mod tests;
