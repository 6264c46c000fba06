//! A channel of another relay, brought here under the same numbers, so that readers may go from one to the other.

use std::time::Duration;

use anyhow::{Context, bail};
use comfy_core::trickle::client::{Arrival, Client, Config, Inbox, Next, SubscribeSettings};
use comfy_core::trickle::server::{LocalError, LocalSegment, Server};
use comfy_core::trickle::subscriber::{Over, Settings};
use comfy_core::trickle::wire::{ChannelUrl, Wanted, is_name, value};
use tokio::sync::watch;
use tokio::time::sleep;

/// Pause before a mirror begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// One channel, and where it comes from.
#[derive(Debug)]
pub(crate) struct Mirror {
    urls: Vec<ChannelUrl>,
    channel: String,
    client: Client,
}

/// How much of a segment is here.
#[derive(Debug, Default)]
struct Place {
    seq: Option<u64>,
    bytes: usize,
}

impl Mirror {
    /// Reads `URL[,URL...]=CHANNEL`.
    pub(crate) fn all(texts: &[String], config: &Config) -> anyhow::Result<Vec<Self>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let client = Client::new(config.clone())?;
        let one = |text: &String| {
            let expected = || format!("mirror: {text:?}: expected URL[,URL...]=CHANNEL");
            let (urls, channel) = text.rsplit_once('=').with_context(expected)?;
            if !is_name(channel) {
                bail!("{}, with the name of a channel after the =", expected());
            }
            let urls: Result<Vec<ChannelUrl>, _> = urls.split(',').map(str::parse).collect();
            Ok(Self {
                urls: urls.with_context(expected)?,
                channel: channel.to_owned(),
                client: client.clone(),
            })
        };
        texts.iter().map(one).collect()
    }

    /// Mirrors until the relay stops.
    pub(crate) async fn run(self, server: Server, mut stop: watch::Receiver<bool>) {
        let mut at = Place::default();
        let mirroring = async {
            loop {
                self.once(&server, &mut at).await;
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = mirroring => (),
            _ = stop.changed() => (),
        }
    }

    async fn once(&self, server: &Server, at: &mut Place) {
        let settings = SubscribeSettings {
            policy: Settings {
                start: Wanted::Current,
                ..Settings::default()
            },
            ..SubscribeSettings::default()
        };
        let (inbox, task) = self.client.subscribe(self.urls.clone(), settings);
        let (done, ()) = tokio::join!(task.run(), self.copy(server, &inbox, at));
        let trouble = done.trouble.unwrap_or_default();
        match done.over {
            Over::Closed | Over::NoChannel => {
                if server.delete(&self.channel) {
                    tracing::info!(channel = self.channel, "mirror: the channel has ended upstream");
                }
            }
            Over::Refused(_) | Over::Failed | Over::Lagged | Over::Stopped => {
                tracing::warn!(channel = self.channel, over = ?done.over, trouble, "mirror: begins anew");
            }
        }
    }

    async fn copy(&self, server: &Server, inbox: &Inbox, at: &mut Place) {
        let mut known = 0;
        let mut open: Option<LocalSegment> = None;
        loop {
            match inbox.next().await {
                Next::Arrival(Arrival::Segment { seq, mime, gap, .. }) => {
                    if gap > 0 {
                        tracing::warn!(channel = self.channel, gap, "mirror: segments were missed");
                    }
                    let mime = mime.as_deref().unwrap_or(value::UNKNOWN_TYPE);
                    // One that broke off is read again from its start, and is here already as far as it came.
                    known = if at.seq == Some(seq) { at.bytes } else { 0 };
                    *at = Place {
                        seq: Some(seq),
                        bytes: known,
                    };
                    open = self.noted(server.begin(&self.channel, mime, Some(seq)));
                }
                Next::Arrival(Arrival::Bytes(mut bytes)) => {
                    let skipped = known.min(bytes.len());
                    known -= skipped;
                    let bytes = bytes.split_off(skipped);
                    at.bytes += bytes.len();
                    if bytes.is_empty() {
                        continue;
                    }
                    if let Some(segment) = &mut open
                        && self.noted(segment.write(bytes)).is_none()
                    {
                        open = None;
                    }
                }
                Next::Arrival(Arrival::End { complete, .. }) => {
                    if complete {
                        *at = Place::default();
                        if let Some(segment) = open.take() {
                            segment.finish();
                        }
                    }
                    open = None;
                }
                Next::Interrupted | Next::TimedOut => (),
                Next::Over(_) => return,
            }
        }
    }

    fn noted<T>(&self, result: Result<T, LocalError>) -> Option<T> {
        result
            .inspect_err(|error| tracing::warn!(channel = self.channel, %error, "mirror: a segment was left out"))
            .ok()
    }
}
