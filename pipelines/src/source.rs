//! Streams that no peer sends: files, test pictures, cameras of the network.

use std::sync::Arc;

use crate::pool::Pool;
use crate::stream::{self, Stream};

/// A source that runs until it is closed; it starts again when it ends or fails.
#[derive(Debug)]
pub struct Source {}

impl Source {
    /// Opens `uri` (file://, rtsp://, srt://, v4l2://, trickle://, `test:` or a path) in the background.
    pub fn open(
        pool: &Arc<Pool>,
        name: &str,
        uri: &str,
        settings: stream::Settings,
        listener: Listener,
    ) -> Result<Self, crate::infergraph::Error> {
        let _ = (pool, name, uri, settings, listener);
        todo!()
    }

    /// What comes of it.
    pub fn stream(&self) -> &Arc<Stream> {
        todo!()
    }

    /// Ends it.
    pub fn close(&self) {
        todo!()
    }
}

/// Hears what the stream says.
pub type Listener = Arc<dyn Fn(stream::Event) + Send + Sync>;
