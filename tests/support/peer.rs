//! Programs of others, spoken to over their pipes.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::DEADLINE;
use crate::models::root;

/// What installs the browser, its driver and the Python clients.
const WEB: &str = "scripts/setup.sh browser webpeers";

/// A program that runs until it ends by itself, or this is dropped.
pub struct Peer {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    /// What came and was not asked for yet.
    ahead: Vec<u8>,
    errors: Arc<Mutex<Vec<u8>>>,
    complaints: Option<JoinHandle<()>>,
    /// How long it may say nothing.
    patience: Duration,
}

/// What a program did.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its output and was not read before.
    pub output: Vec<u8>,
    /// What it wrote to its errors.
    pub errors: String,
}

impl Peer {
    /// Starts a program of the system, one that `scripts/packages.txt` names.
    pub fn start<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(program, command, "scripts/setup.sh packages")
    }

    /// Starts the driver of pytrickle: `tests/peers/pytrickle_peer.py` says what it understands.
    pub fn pytrickle(arguments: &[&str]) -> Self {
        let mut command = Command::new(root().join(".work/peers/bin/python"));
        command
            .arg(root().join("tests/peers/pytrickle_peer.py"))
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::spawn("pytrickle", command, "scripts/setup.sh peers")
    }

    /// Starts a scenario of the browser's driver against a service: `tests/browser/run.mjs` says what it prints.
    pub fn browser(scenario: &str, base: &str, options: &[&str]) -> Self {
        let mut command = Command::new("node");
        command
            .arg(root().join("tests/browser/run.mjs"))
            .args([scenario, base])
            .args(options);
        Self::spawn(&format!("the browser's {scenario}"), command, WEB).patient()
    }

    /// Starts a script of `tests/peers/web` against a service.
    pub fn web(script: &str, base: &str, options: &[&str]) -> Self {
        let mut command = Command::new(root().join(".work/webpeers/bin/python"));
        command
            .arg(root().join("tests/peers/web").join(script))
            .arg(base)
            .args(options)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::spawn(script, command, WEB).patient()
    }

    /// Starts a program that this build has made.
    pub(crate) fn ours(name: &str, command: Command) -> Self {
        Self::spawn(name, command, "cargo build")
    }

    /// They end by themselves before that, and then say why.
    fn patient(mut self) -> Self {
        self.patience = Duration::from_secs(120);
        self
    }

    fn spawn(name: &str, mut command: Command, remedy: &str) -> Self {
        // A proxy of the machine's is not for the loopback.
        for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        let spawned = command
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned
            .unwrap_or_else(|error| panic!("{name} cannot be started ({error}): run `{remedy}`, which installs it"));
        // A program that is not listened to waits, as it would at a pipe.
        let (give, output) = sync_channel(64);
        let mut pipe = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if give.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (mut pipe, into) = (child.stderr.take().expect("piped"), errors.clone());
        let complaints = std::thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            output,
            ahead: Vec::new(),
            errors,
            complaints: Some(complaints),
            patience: DEADLINE,
        }
    }

    /// Writes to its input.
    pub fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("not closed yet");
        let written = input.write_all(bytes).and_then(|()| input.flush());
        written.unwrap_or_else(|error| self.fail(&format!("does not listen: {error}")));
    }

    /// Closes its input.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// The next line of its output, without its end.
    pub fn line(&mut self) -> String {
        let end = loop {
            match self.ahead.iter().position(|byte| *byte == b'\n') {
                Some(end) => break end,
                None => self.more(),
            }
        };
        let line = self.ahead.drain(..=end).collect();
        let line = String::from_utf8(line).expect("it writes text");
        line.trim_end().to_owned()
    }

    /// So many bytes of its output.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            self.more();
        }
        self.ahead.drain(..count).collect()
    }

    /// Closes its input, and waits for its end.
    pub fn end(mut self) -> Done {
        self.close();
        while self.fetch() {}
        let status = self.child.wait().expect("its output has ended");
        if let Some(complaints) = self.complaints.take() {
            complaints.join().expect("reading does not fail");
        }
        Done {
            status,
            output: std::mem::take(&mut self.ahead),
            errors: self.complaint(),
        }
    }

    /// The same; fails unless it was content, and gives its output.
    pub fn expect_success(self) -> Vec<u8> {
        let name = self.name.clone();
        let done = self.end();
        assert!(done.status.success(), "{name}: {}\n{}", done.status, done.errors);
        done.output
    }

    fn more(&mut self) {
        if !self.fetch() {
            self.fail("has ended");
        }
    }

    /// False at the end of its output.
    fn fetch(&mut self) -> bool {
        match self.output.recv_timeout(self.patience) {
            Ok(bytes) => self.ahead.extend_from_slice(&bytes),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => self.fail("says nothing"),
        }
        true
    }

    /// What it has written to its errors so far.
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.errors.lock().unwrap()).into_owned()
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{} {what}; it complained: {}", self.name, self.complaint())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
