//! The task's half of subscribing: one GET per segment, the next one open before it is needed.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::inbox::{Arrival, Inbox, Shared};
use super::{Answered, Client, Error};
use crate::trickle::subscriber::{Outcome, Over, Settings, Stats, Subscriber, Verdict};
use crate::trickle::wire::{Answer, ChannelUrl, Wanted, status};

/// Time for the rest of an answer without a segment. Another connection costs about as much.
const REST: Duration = Duration::from_millis(100);

/// How something is subscribed to.
#[derive(Debug, Clone)]
pub struct SubscribeSettings {
    /// Position, retries, failures.
    pub policy: Settings,
    /// Bytes that may wait to be taken.
    pub max_queued: usize,
    /// Ask for the next segment while one is read.
    pub preconnect: bool,
}

impl Default for SubscribeSettings {
    fn default() -> Self {
        Self {
            policy: Settings::default(),
            max_queued: 4 << 20,
            preconnect: true,
        }
    }
}

/// How subscribing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// Why.
    pub over: Over,
    /// What failed last, for people.
    pub trouble: Option<String>,
    /// Counters.
    pub stats: Stats,
}

/// To be spawned: see [`Client::subscribe`].
#[must_use = "nothing is read unless this runs"]
pub struct SubscribeTask {
    client: Client,
    urls: Vec<ChannelUrl>,
    /// The one in use.
    url: usize,
    /// Addresses in a row that had nothing for us.
    barren: usize,
    settings: SubscribeSettings,
    policy: Subscriber,
    shared: Arc<Shared>,
    ahead: Option<Ahead>,
    /// A segment that was begun and not ended.
    open: Option<u64>,
    started: Instant,
}

/// A GET that runs by itself, and ends when dropped.
struct Ahead {
    wanted: Wanted,
    task: JoinHandle<Result<Answered, Error>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Reads a channel. Of several addresses the first is used, and the next when that one fails or has ended, as long
    /// as any has something.
    ///
    /// The first half is where it arrives, for any thread. The second is to be spawned; when it is dropped its
    /// connections close and the inbox says [`Over::Stopped`].
    pub fn subscribe(&self, urls: Vec<ChannelUrl>, settings: SubscribeSettings) -> (Inbox, SubscribeTask) {
        let (inbox, shared) = Inbox::new(settings.max_queued);
        let task = SubscribeTask {
            client: self.clone(),
            urls,
            url: 0,
            barren: 0,
            policy: Subscriber::new(settings.policy),
            settings,
            shared,
            ahead: None,
            open: None,
            started: Instant::now(),
        };
        (inbox, task)
    }
}

impl Drop for SubscribeTask {
    fn drop(&mut self) {
        self.shared.end(Over::Stopped);
    }
}

impl SubscribeTask {
    /// Reads until it is over.
    pub async fn run(mut self) -> Subscribed {
        let mut trouble = None;
        let over = loop {
            let Some(url) = self.urls.get(self.url).cloned() else {
                trouble = Some("there is no address to subscribe to".to_owned());
                break Over::Failed;
            };
            let result = self.get(&url).await;
            let (outcome, answered) = match result {
                Ok(answered) => (Outcome::Answered(answered.head.clone()), Some(answered)),
                Err(error) => {
                    trouble = Some(error.to_string());
                    self.shared.trouble(error.to_string());
                    (Outcome::Broken, None)
                }
            };
            if let Outcome::Answered(answer) = &outcome
                && !matches!(answer.status, status::OK | status::MISSING)
            {
                let error = refused(&url, answer);
                self.shared.trouble(error.clone());
                trouble = Some(error);
            }
            let mut verdict = self.policy.answered(self.now(), &outcome);
            // Before what they count is handed out.
            self.shared.set_stats(self.policy.stats());
            match (&verdict, answered) {
                (Verdict::Read { .. }, Some(answered)) => {
                    verdict = self.read(&url, verdict, answered, &mut trouble).await;
                }
                (_, Some(answered)) => {
                    // Its few words are of no interest, but the connection is.
                    let _ = timeout(REST, self.client.text(answered)).await;
                }
                (_, None) => (),
            }
            self.shared.set_stats(self.policy.stats());
            match verdict {
                Verdict::Ask | Verdict::Read { .. } => (),
                Verdict::AskAt(at) => sleep_until(self.started + at).await,
                Verdict::Over(over) => {
                    self.barren += 1;
                    if self.barren >= self.urls.len() || over == Over::Lagged {
                        break over;
                    }
                    self.ahead = None;
                    self.url = (self.url + 1) % self.urls.len();
                    self.policy.moved();
                }
            }
        };
        self.close_segment(false).await;
        self.shared.end(over);
        Subscribed {
            over,
            trouble,
            stats: self.policy.stats(),
        }
    }

    /// The answer to what is wanted now, asked for in advance or not.
    async fn get(&mut self, url: &ChannelUrl) -> Result<Answered, Error> {
        let wanted = self.policy.ask();
        match self.ahead.take().filter(|ahead| ahead.wanted == wanted) {
            Some(mut ahead) => match (&mut ahead.task).await {
                Ok(result) => result,
                Err(error) => Err(Error::Setup(format!("{url}: {error}"))),
            },
            None => get(&self.client, url, wanted, self.settings.policy.reissue).await,
        }
    }

    /// Reads a segment, and says what is next.
    async fn read(
        &mut self,
        url: &ChannelUrl,
        verdict: Verdict,
        answered: Answered,
        trouble: &mut Option<String>,
    ) -> Verdict {
        let Verdict::Read {
            seq,
            gap,
            discont,
            lag,
            resume,
        } = verdict
        else {
            return verdict;
        };
        if self.settings.preconnect {
            self.look_ahead(url);
        }
        let Answered { head, mut body, line } = answered;
        if resume == 0 {
            self.close_segment(false).await;
        }
        let mime: Option<Arc<str>> = head.mime.map(Into::into);
        let (mut read, stall) = (0_u64, self.settings.policy.stall);
        loop {
            let broke = match timeout(stall, body.frame()).await {
                Ok(None) => {
                    self.client.inner.pool.give(line, &self.client.inner.config);
                    self.barren = 0;
                    self.policy.finished(seq);
                    self.close_segment(true).await;
                    return Verdict::Ask;
                }
                Ok(Some(Ok(frame))) => {
                    let Ok(mut bytes) = frame.into_data() else { continue };
                    let known = resume.saturating_sub(read).min(bytes.len() as u64);
                    read += bytes.len() as u64;
                    let bytes = bytes.split_off(known as usize);
                    if bytes.is_empty() {
                        continue;
                    }
                    if self.open != Some(seq) {
                        self.close_segment(false).await;
                        let mime = mime.clone();
                        self.open = Some(seq);
                        let segment = Arrival::Segment {
                            seq,
                            mime,
                            discont,
                            gap,
                            lag,
                        };
                        self.shared.put(segment).await;
                    }
                    self.shared.put(Arrival::Bytes(bytes)).await;
                    continue;
                }
                Ok(Some(Err(error))) => Error::broken(url, error).to_string(),
                Err(_) => format!("{url}: segment {seq} has stood still for {stall:?}"),
            };
            self.shared.trouble(broke.clone());
            *trouble = Some(broke);
            self.ahead = None;
            return self.policy.broke(self.now(), seq, read.max(resume));
        }
    }

    /// Asks for the next segment already.
    fn look_ahead(&mut self, url: &ChannelUrl) {
        let (client, url, wanted) = (self.client.clone(), url.clone(), self.policy.ask());
        let reissue = self.settings.policy.reissue;
        let task = tokio::spawn(async move { get(&client, &url, wanted, reissue).await });
        self.ahead = Some(Ahead { wanted, task });
    }

    async fn close_segment(&mut self, complete: bool) {
        if let Some(seq) = self.open.take() {
            self.shared.put(Arrival::End { seq, complete }).await;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Asks until there is an answer. Each time on another connection, so that a dead one is noticed.
async fn get(client: &Client, url: &ChannelUrl, wanted: Wanted, reissue: Duration) -> Result<Answered, Error> {
    let path = url.segment(wanted);
    loop {
        let asking = client.send(&Method::GET, url, &path, None, &|request| request);
        if let Ok(result) = timeout(reissue, asking).await {
            return result;
        }
    }
}

fn refused(url: &ChannelUrl, answer: &Answer) -> String {
    Error::Refused {
        url: url.to_string(),
        status: answer.status,
        text: "the channel cannot be read".into(),
    }
    .to_string()
}
