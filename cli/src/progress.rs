//! A bar for work that takes long, where somebody watches.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shorter work is done before anybody wonders.
const PATIENCE: Duration = Duration::from_secs(1);

/// Progress of one piece of work. Shows nothing in its first second, and nothing at all where stderr is no
/// terminal.
pub struct Progress {
    started: Instant,
    watched: bool,
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress that is shown if somebody watches and `quiet` was not asked for.
    pub fn new(quiet: bool) -> Self {
        let watched = !quiet && io::stderr().is_terminal();
        Self { started: Instant::now(), watched, what: "", total: 0, bar: None }
    }

    /// A new piece of work begins, of `total` steps.
    pub fn begin(&mut self, what: &'static str, total: u64) {
        (self.what, self.total) = (what, total);
        if let Some(bar) = &self.bar {
            show(bar, what, total);
        }
    }

    /// So many steps are done.
    pub fn set(&mut self, done: u64) {
        if !self.watched {
            return;
        }
        if self.bar.is_none() && self.started.elapsed() >= PATIENCE {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            show(&bar, self.what, self.total);
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn show(bar: &ProgressBar, what: &'static str, total: u64) {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %  {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_length(total);
    bar.set_position(0);
    bar.set_message(what);
}
