//! One run of publishing: from the first caps or buffer to EOS, a flush after it, or the stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comfy_core::trickle::client::{Client, Error, Event, Feed, PublishSettings};
use comfy_core::trickle::ts::Cutter;
use comfy_core::trickle::wire::ChannelUrl;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Create;

/// Pause before the channel is created again after nobody answered, and the longest one; it doubles.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What the streaming thread has.
pub(super) struct Session {
    pub(super) feed: Feed,
    pub(super) mime: String,
    pub(super) how: How,
    /// A segment has begun and is not lost.
    pub(super) writing: bool,
    /// Key pictures asked for.
    pub(super) asked: u32,
    /// The channel is to be deleted when all is answered.
    delete: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// Where segments begin.
pub(super) enum How {
    Ts(Box<Cutter>),
    Buffers,
    /// When the one that is being written began.
    Duration(Option<gst::ClockTime>),
}

/// What a session tells from the runtime's threads.
pub(super) enum Told {
    Event(Event),
    /// The channel cannot be created, and that was wanted.
    NotCreated(Error),
    /// Everything is answered, or nothing more will be.
    Done,
}

impl Session {
    pub(super) fn start(
        runtime: &Runtime,
        client: &Client,
        url: &ChannelUrl,
        settings: PublishSettings,
        create: Create,
        how: How,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Self {
        let tell = Arc::new(tell);
        let mime = settings.mime.clone();
        let heard = tell.clone();
        let (feed, publishing) = client.publish(url, settings, move |event| heard(Told::Event(event)));
        let delete = Arc::new(AtomicBool::new(false));
        let task = {
            let (client, url, mime, delete) = (client.clone(), url.clone(), mime.clone(), delete.clone());
            runtime.spawn(async move {
                if create != Create::Never
                    && let Err(error) = created(&client, &url, &mime, create, &*tell).await
                {
                    tell(Told::NotCreated(error));
                    return;
                }
                let published = publishing.run().await;
                if delete.load(Ordering::Acquire) && published.over.is_none() {
                    // A channel that is not deleted ends by itself when nothing is written any more.
                    let _ = client.delete(&url).await;
                }
                tell(Told::Done);
            })
        };
        Self {
            feed,
            mime,
            how,
            writing: false,
            asked: 0,
            delete,
            task,
        }
    }

    /// No more segments follow.
    pub(super) fn finish(&self, delete: bool) {
        self.delete.store(delete, Ordering::Release);
        self.feed.finish();
    }

    /// Lets the server have what was handed over, within a time, while nobody waits for it.
    pub(super) fn leave(self, runtime: &Runtime, time: Duration) {
        self.feed.finish();
        let mut task = self.task;
        runtime.spawn(async move {
            if timeout(time, &mut task).await.is_err() {
                task.abort();
            }
        });
    }

    /// Stops at once.
    pub(super) fn abort(self) {
        self.task.abort();
    }
}

/// Creates the channel as soon as the server answers.
async fn created(
    client: &Client,
    url: &ChannelUrl,
    mime: &str,
    create: Create,
    tell: &(dyn Fn(Told) + Send + Sync),
) -> Result<(), Error> {
    let (mut pause, longest) = RETRY;
    loop {
        match client.create(url, mime).await {
            Ok(()) => return Ok(()),
            Err(error @ (Error::Refused { .. } | Error::Setup(_))) => match create {
                Create::Always => return Err(error),
                Create::Auto | Create::Never => return Ok(()),
            },
            Err(error) => tell(Told::Event(Event::Trouble(error.to_string()))),
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
