//! `comfystream serve`, as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::Peer;

const ANNOUNCED: &str = "open http://localhost:";

/// A service that runs until it is killed or dropped.
pub struct Service {
    program: Peer,
    port: u16,
}

fn serving(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
        .args(arguments);
    command
}

impl Service {
    /// Starts one on a port of its own.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at(0, arguments)
    }

    /// The same, where one was before.
    pub fn start_at(port: u16, arguments: &[&str]) -> Self {
        Self::announced(Peer::ours("comfystream", serving(port, arguments)))
    }

    /// The same, behind a TURN server. libnice warns when a peer goes while what it holds there is still being refreshed,
    /// which depends on the moment and is nothing that we can end before it; where warnings are fatal, that ends the
    /// service.
    pub fn start_behind_turn(arguments: &[&str]) -> Self {
        let mut command = serving(0, arguments);
        command.env_remove("G_DEBUG");
        Self::announced(Peer::ours("comfystream", command))
    }

    /// What `make demo` shows of a video and a model; the demo's own files go to `out`.
    pub fn demo(input: &Path, model: &str, out: &Path) -> Self {
        let folder = binary().parent().expect("a program is in a folder");
        let mut command = Command::new("scripts/demo.sh");
        command.arg(folder).arg(input).args([model, "2", "127.0.0.1:0"]);
        command.env("OUT", out).current_dir(crate::models::root());
        Self::announced(Peer::ours("demo.sh", command))
    }

    fn announced(mut program: Peer) -> Self {
        let port = loop {
            if let Some(port) = program.line().strip_prefix(ANNOUNCED) {
                break port.parse().expect("a port");
            }
        };
        Self { program, port }
    }

    /// Where its page is.
    pub fn base(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.program.complaint()
    }

    /// Ends it as a crash would, and gives its port.
    pub fn kill(self) -> u16 {
        self.port
    }
}

/// Path of `comfystream`, of the same build as this test.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let exe = std::env::current_exe().expect("a test has a path");
        let profile = exe.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
        let target = profile.parent().expect("target/PROFILE");
        let program = profile.join("comfystream");
        // `cargo test --workspace` has built it. A test of this crate alone takes what is there, however old.
        if program.is_file() {
            return program;
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--locked", "-p", "comfystream", "--target-dir"]);
        build.arg(target);
        match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => (),
            Some(name) => drop(build.args(["--profile", name])),
        }
        let built = build.current_dir(crate::models::root()).output();
        let built = built.expect("cargo can be started");
        assert!(
            built.status.success(),
            "comfystream cannot be built: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        program
    })
}
