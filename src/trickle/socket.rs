//! What every TCP connection of ours is told.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// No waiting for more to send, and an end to a peer that is gone without a word.
pub(super) fn prepare(stream: &TcpStream, unanswered: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let pause = (unanswered / 3).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(pause)
            .with_interval(pause)
            .with_retries(3),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unanswered))?;
    Ok(())
}
