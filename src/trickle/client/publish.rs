//! The task's half of publishing: one POST per segment, the next one open before it is needed.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::feed::{Event, Feed, Shared};
use super::upload::Upload;
use super::{Client, Error};
use crate::trickle::publisher::{Allocate, Outcome, Over, Publisher, Sent, Settings, Stats, Verdict};
use crate::trickle::wire::{Answer, ChannelUrl, Wanted, header, status, value};

/// How something is published.
#[derive(Debug, Clone)]
pub struct PublishSettings {
    /// Numbers, retries, failures.
    pub policy: Settings,
    /// `Content-Type` of each segment. Servers take note of it when the segment creates the channel.
    pub mime: String,
    /// Send each segment when the one before it is answered, on the same connection, while as many as
    /// `policy.in_flight` wait their turn. For messages: segments shorter than a round trip, on connections of their
    /// own, could overtake each other.
    pub one_by_one: bool,
    /// Open the POST of the next segment before there is something to send. Not where they go one by one.
    pub preconnect: bool,
    /// Bytes that may wait to be sent.
    pub max_queued: usize,
    /// Time for the connection to take what waits, and for the answer after the end of a segment.
    pub stall: Duration,
    /// How often to look whether the connection has taken something, for [`Event::Room`].
    pub room: Duration,
    /// Delete the channel at the end.
    pub delete: bool,
}

impl Default for PublishSettings {
    fn default() -> Self {
        Self {
            policy: Settings::default(),
            mime: value::MPEG_TS.into(),
            one_by_one: false,
            preconnect: true,
            max_queued: 4 << 20,
            stall: Duration::from_secs(5),
            room: Duration::from_millis(5),
            delete: false,
        }
    }
}

/// How publishing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Why; `None` = [`Feed::finish`] was asked for, and every answer is in.
    pub over: Option<Over>,
    /// Counters.
    pub stats: Stats,
}

/// To be spawned: see [`Client::publish`].
#[must_use = "nothing is published unless this runs"]
pub struct PublishTask {
    client: Client,
    url: ChannelUrl,
    settings: PublishSettings,
    mime: HeaderValue,
    policy: Publisher,
    shared: Arc<Shared>,
    posts: JoinSet<Post>,
    started: Instant,
    /// Ask for next-write or open a preconnect again then.
    wait: Option<Instant>,
    why: String,
}

/// A POST that has ended.
struct Post {
    seq: u64,
    upload: Arc<Upload>,
    result: Result<Answer, String>,
}

impl Client {
    /// Publishes segments. `tell` hears what becomes of them, on a thread of the runtime.
    ///
    /// The first half takes the segments and may be used from any thread. The second is to be spawned; when it is
    /// dropped its connections close and the feed says [`Over::Stopped`].
    pub fn publish(
        &self,
        url: &ChannelUrl,
        mut settings: PublishSettings,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> (Feed, PublishTask) {
        let (feed, shared) = Feed::new(settings.max_queued, settings.policy.in_flight, Box::new(tell));
        if settings.one_by_one {
            settings.policy.in_flight = 1;
            settings.preconnect = false;
        }
        let task = PublishTask {
            client: self.clone(),
            url: url.clone(),
            mime: HeaderValue::from_str(&settings.mime).unwrap_or(HeaderValue::from_static(value::UNKNOWN_TYPE)),
            policy: Publisher::new(settings.policy),
            settings,
            shared,
            posts: JoinSet::new(),
            started: Instant::now(),
            wait: None,
            why: String::new(),
        };
        (feed, task)
    }
}

impl Drop for PublishTask {
    fn drop(&mut self) {
        self.shared.end(Over::Stopped);
    }
}

impl PublishTask {
    /// Publishes until [`Feed::finish`] is done or nothing can be published any more.
    pub async fn run(mut self) -> Published {
        let shared = self.shared.clone();
        loop {
            self.number().await;
            self.shared.set_stats(self.policy.stats());
            self.shared.tell_room();
            if self.policy.over().is_some()
                || (self.shared.finishing() && self.policy.open() == 0 && !self.shared.has_unnumbered())
            {
                break;
            }
            let wait = self.wait;
            let pause = async {
                match wait {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let room = async {
                match shared.waiting() {
                    true => sleep(self.settings.room).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(post) = self.posts.join_next() => match post {
                    Ok(post) => self.ended(post),
                    // A panic in one POST is a bug here; the numbers are not to be trusted after it.
                    Err(error) => {
                        self.why = format!("{}: {error}", self.url);
                        break;
                    }
                },
                () = shared.work.notified() => (),
                () = pause => self.wait = None,
                () = room => (),
            }
        }
        self.close().await
    }

    /// Gives numbers to segments that have none, and opens the next one.
    async fn number(&mut self) {
        if self.shared.finishing() {
            self.shed_ready();
        }
        loop {
            let needed = self.shared.has_unnumbered();
            if self.wait.is_some() || !(needed || self.settings.preconnect && self.shared.wants_ready()) {
                return;
            }
            match self.policy.allocate(self.now()) {
                Allocate::Ask => self.ask().await,
                Allocate::Open { seq, reset } => {
                    let upload = match self.shared.take_unnumbered() {
                        Some(upload) => {
                            self.policy.begun(seq);
                            upload
                        }
                        None => {
                            let upload = Upload::new(self.shared.queued.clone());
                            if !self.shared.offer_ready(seq, &upload) {
                                self.policy.unused(seq);
                                return;
                            }
                            upload
                        }
                    };
                    self.post(seq, reset, upload, None);
                }
                Allocate::Busy => {
                    if !needed || self.settings.one_by_one {
                        return;
                    }
                    let Some(upload) = self.shared.take_unnumbered() else {
                        return;
                    };
                    upload.fail();
                    self.policy.dropped();
                    self.lost(None, "too many segments await their answer".into());
                }
                Allocate::Wait(until) => self.wait = Some(self.started + until),
                Allocate::Over(over) => return self.over(over),
            }
        }
    }

    async fn ask(&mut self) {
        let answer = match self.client.next(&self.url).await {
            Ok(latest) => Some(Answer {
                latest: Some(latest),
                ..Answer::bare(status::OK)
            }),
            Err(Error::Refused { status, text, url }) => {
                self.why = format!("{url}: the server answers {status}: {text}");
                Some(Answer::bare(status))
            }
            Err(error) => {
                self.trouble(error.to_string());
                None
            }
        };
        let now = self.now();
        if let Some(over) = self.policy.found(now, answer.as_ref()) {
            self.over(over);
        }
    }

    fn post(&mut self, seq: u64, reset: bool, upload: Arc<Upload>, at: Option<Instant>) {
        let (client, url, mime) = (self.client.clone(), self.url.clone(), self.mime.clone());
        let stall = self.settings.stall;
        self.posts.spawn(async move {
            if let Some(at) = at {
                sleep_until(at).await;
            }
            let posting = post(&client, &url, seq, reset, &mime, &upload);
            let result = tokio::select! {
                result = posting => result.map_err(|error| error.to_string()),
                stuck = stuck(&upload, stall) => Err(format!("{url}: {stuck}")),
            };
            Post { seq, upload, result }
        });
    }

    fn ended(&mut self, post: Post) {
        let Post { seq, upload, result } = post;
        self.shared.take_ready(&upload);
        let ready = !upload.is_claimed();
        if ready && upload.is_failed() {
            return;
        }
        if !ready {
            self.policy.begun(seq);
        }
        let sent = match upload.is_failed() {
            // Given up by the caller, in whatever state.
            true if upload.sent() == Sent::All => Sent::Some,
            _ => upload.sent(),
        };
        let (outcome, why) = match result {
            Ok(answer) => {
                let why = format!("{}: segment {seq}: the server answers {}", self.url, answer.status);
                (Outcome::Answered(answer), why)
            }
            Err(why) => (Outcome::Broken, why),
        };
        if upload.is_failed() && outcome == Outcome::Broken {
            let delete = self.policy.abandoned(seq);
            self.settle(
                ready,
                Some(seq),
                format!("{}: segment {seq} was given up", self.url),
                delete,
            );
            return;
        }
        let now = self.now();
        match self.policy.answered(now, seq, &outcome, sent) {
            Verdict::Done => {
                self.shared.settled();
                self.shared.tell(Event::Done {
                    seq,
                    bytes: upload.offered(),
                });
            }
            Verdict::Retry(at) => {
                self.trouble(why);
                if ready && !self.shared.offer_ready(seq, &upload) {
                    self.policy.unused(seq);
                    return;
                }
                self.post(seq, false, upload, Some(self.started + at));
            }
            Verdict::Renumber if ready => (),
            Verdict::Renumber => {
                // The number that waits comes before the ones not given out yet.
                self.shed_ready();
                self.shared.return_unnumbered(upload);
            }
            Verdict::Skip { delete } => {
                upload.fail();
                self.settle(ready, Some(seq), why, delete);
            }
            Verdict::Over(over) => {
                upload.fail();
                self.why = why.clone();
                self.settle(ready, Some(seq), why, false);
                self.over(over);
            }
        }
    }

    fn settle(&mut self, ready: bool, seq: Option<u64>, why: String, delete: bool) {
        if let Some(seq) = seq.filter(|_| delete) {
            let (client, url) = (self.client.clone(), self.url.clone());
            // Without it readers wait for the server to find out; nothing depends on its answer.
            tokio::spawn(async move { drop(client.delete_segment(&url, seq).await) });
        }
        if ready {
            self.trouble(why);
        } else {
            self.lost(seq, why);
        }
    }

    fn lost(&mut self, seq: Option<u64>, why: String) {
        self.shared.settled();
        self.shared.tell(Event::Lost { seq, why });
    }

    fn trouble(&mut self, why: String) {
        self.why.clone_from(&why);
        self.shared.tell(Event::Trouble(why));
    }

    fn over(&mut self, over: Over) {
        if self.shared.end(over) {
            self.cut_off();
            let why = match over {
                Over::Closed => format!("{}: the channel has ended", self.url),
                Over::NoChannel => format!(
                    "{}: the channel does not exist; create it, or let the server create channels by itself",
                    self.url
                ),
                Over::Refused(status) => format!("{}: the server answers {status}; check the token", self.url),
                Over::Failed | Over::Exhausted | Over::Stopped => self.why.clone(),
            };
            self.shared.tell(Event::Over { over, why });
        }
    }

    /// Nothing is answered any more: what was begun is lost.
    fn cut_off(&mut self) {
        self.posts.abort_all();
        for _ in 0..self.shared.take_active() {
            self.policy.cut_off();
            let why = format!("{}: publishing ended before it was answered", self.url);
            self.shared.tell(Event::Lost { seq: None, why });
        }
        self.shared.set_stats(self.policy.stats());
    }

    /// Gives up the preconnected POST and its number.
    fn shed_ready(&mut self) {
        if let Some((seq, upload)) = self.shared.shed_ready() {
            upload.fail();
            self.policy.unused(seq);
        }
    }

    async fn close(mut self) -> Published {
        if let Some(over) = self.policy.over() {
            self.over(over);
        }
        self.shared.end(Over::Stopped);
        // Also where a bug in one POST has ended the others.
        self.cut_off();
        if self.settings.delete && self.policy.over().is_none() {
            // It ends by itself when nothing is written any more.
            let _ = self.client.delete(&self.url).await;
        }
        Published {
            over: self.policy.over(),
            stats: self.policy.stats(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

async fn post(
    client: &Client,
    url: &ChannelUrl,
    seq: u64,
    reset: bool,
    mime: &HeaderValue,
    upload: &Arc<Upload>,
) -> Result<Answer, Error> {
    let path = url.segment(Wanted::Number(seq));
    let with = |request: hyper::http::request::Builder| {
        let request = request.header(CONTENT_TYPE, mime);
        match reset {
            true => request.header(header::RESET, value::RESET),
            false => request,
        }
    };
    let answered = client.send(&Method::POST, url, &path, Some(upload), &with).await?;
    if upload.sent() != Sent::All {
        // Answered early. The connection is in the middle of a body that nobody wants.
        return Ok(answered.head);
    }
    Ok(client.text(answered).await.0)
}

/// Returns when the connection has taken nothing for too long, or there is no answer after the end.
async fn stuck(upload: &Upload, stall: Duration) -> String {
    // What waited before there was a connection is not this one's fault.
    let begun = Instant::now();
    loop {
        match upload.stuck_since().map(|since| since.max(begun)) {
            Some(since) if since.elapsed() >= stall && upload.sent() == Sent::All => {
                return format!("no answer within {stall:?} after the end of the segment");
            }
            Some(since) if since.elapsed() >= stall => {
                return format!("the server has taken nothing for {stall:?}");
            }
            // Not before then can it be stuck for so long.
            Some(since) => sleep_until(since + stall).await,
            None => sleep(stall).await,
        }
    }
}
