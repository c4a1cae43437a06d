//! Runs example programs and reads their exports, each checked against the schema and for consistency.

mod example;

pub use example::example;
use memscope_tests::snapshot::{Frame, Process, Snapshot};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Where a program's export goes.
pub fn export_path(folder: &TempDir) -> PathBuf {
    folder.path().join("export.json")
}

/// How a program ended.
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    folder: Option<TempDir>,
}

/// Runs a command to its end, without settings from outside.
pub fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    Ran {
        code: output.status.code(),
        signal: output.status.signal(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        folder: None,
    }
}

/// A command for an example, without settings from outside.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(example(name));
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    command
}

impl Ran {
    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("a program of ours").path()
    }

    /// The final export's path.
    pub fn path(&self) -> PathBuf {
        self.folder().join("export.json")
    }

    /// The final export.
    #[track_caller]
    pub fn export(&self) -> Export {
        Export::load(&self.path())
    }

    /// The export of the panic.
    #[track_caller]
    pub fn panic_export(&self) -> Export {
        Export::load(&self.folder().join("memscope_panic_snapshot.json"))
    }
}

/// The program that ends in many ways.
pub struct Program {
    command: Command,
    folder: TempDir,
}

impl Program {
    /// Ends so, with its export in a folder of its own.
    pub fn new(end: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = command("ends");
        command.arg(end).arg(export_path(&folder));
        Self { command, folder }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Ran {
        Ran { folder: Some(self.folder), ..run(&mut self.command) }
    }

    /// Runs it until it says that it is ready, and sends it a signal.
    pub fn run_and_kill(mut self, signal: i32) -> Ran {
        let mut child =
            self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        // SAFETY: the child has not been waited for, so its number is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let output = child.wait_with_output().expect("its end");
        Ran {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: line,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            folder: Some(self.folder),
        }
    }
}

/// One variable of an export.
#[derive(Debug)]
pub struct Variable {
    pub name: String,
    pub type_name: String,
    pub scope: String,
    pub size: u64,
    pub start: u64,
    pub end: Option<u64>,
    pub lifetime_ns: u64,
    pub freed_by: String,
    pub leaked: bool,
    pub thread: u64,
    pub end_thread: Option<u64>,
    stack: u64,
}

/// An export.
pub struct Export {
    pub process: Process,
    pub variables: Vec<Variable>,
}

impl Export {
    /// Reads and checks it.
    #[track_caller]
    pub fn load(path: &Path) -> Self {
        let mut snapshot = Snapshot::load(path);
        let value: Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
        let process = snapshot.processes.pop().expect("a process");
        let list = value["processes"][0]["allocations"].as_array().expect("a list");
        Self { process, variables: list.iter().map(variable).collect() }
    }

    /// The one variable of a name.
    #[track_caller]
    pub fn one(&self, name: &str) -> &Variable {
        let found: Vec<&Variable> = self.variables.iter().filter(|variable| variable.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {:#?}", self.variables);
        found[0]
    }

    /// The frames of a variable's stack.
    #[track_caller]
    pub fn frames(&self, name: &str) -> Vec<&Frame> {
        let id = self.one(name).stack;
        let stack = self.process.stacks.iter().find(|stack| stack.id == id).expect("its stack");
        stack.frames.iter().map(|&at| &self.process.frames[at]).collect()
    }
}

fn variable(value: &Value) -> Variable {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let number = |field: &str| value[field].as_u64();
    assert!(number("lifetime_ms").is_some(), "a lifetime is null: {value}");
    Variable {
        name: text("var_name"),
        type_name: text("type_name"),
        scope: text("scope_name"),
        size: number("size").expect("a size"),
        start: number("timestamp_alloc").expect("a start"),
        end: number("timestamp_dealloc"),
        lifetime_ns: number("lifetime_ns").expect("a lifetime"),
        freed_by: text("freed_by"),
        leaked: value["is_leaked"] == Value::Bool(true),
        thread: number("thread_id").expect("a thread"),
        end_thread: number("dealloc_thread_id"),
        stack: number("stack_id").expect("a stack"),
    }
}
