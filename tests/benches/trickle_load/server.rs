//! The server that is put under load: somebody's, or one of our own in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::http::Target;

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) target: Target,
    /// Its process, if it is known.
    pub(crate) pid: Option<u32>,
    /// Its name, for people.
    pub(crate) name: String,
    child: Option<Child>,
}

impl Server {
    /// One that runs already.
    pub(crate) fn given(url: &str, pid: Option<u32>) -> Result<Self> {
        Ok(Self {
            target: url.parse()?,
            pid,
            name: url.to_owned(),
            child: None,
        })
    }

    /// `trickle-relay`, which lies beside this program; where it does not, this program can serve, too.
    pub(crate) fn start() -> Result<Self> {
        let own = std::env::current_exe()?;
        let relay = own.with_file_name("trickle-relay");
        let (name, mut command) = match relay.exists() {
            true => ("trickle-relay", Command::new(relay)),
            false => ("trickle_load serve", Command::new(own)),
        };
        match name {
            "trickle-relay" => command.args(["--listen", "127.0.0.1:0", "--autocreate", "--log", "warn"]),
            _ => command.arg("serve"),
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let out = child.stdout.take().context("piped")?;
        let mut server = Self {
            target: "http://127.0.0.1:1/".parse()?,
            pid: Some(child.id()),
            name: name.to_owned(),
            child: Some(child),
        };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{name} says nothing and ends");
        server.target = line.parse()?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Our server, in this process, until it is killed.
pub(crate) fn serve() -> Result<()> {
    use comfy_core::trickle::server::{Config, Server};

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::new(Config {
            autocreate: true,
            ..Config::default()
        })?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}/", listener.local_addr()?);
        server.serve(listener, None, std::future::pending()).await;
        Ok(())
    })
}
