//! The batcher itself. Read [`Batcher::offer`], [`Batcher::mark`] and [`Batcher::next`] first.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Cut, Entry, Leave, MAX_BATCH_SIZE, MAX_MARKERS, Mark, Next, Offer, Policy, Reason, Settings, Stats};

/// Makes batches of the frames of streams. See the [module](super).
#[derive(Debug)]
pub struct Batcher<K, T, M> {
    settings: Settings,
    size: usize,
    window: Option<Duration>,
    /// Sorted by key.
    streams: Vec<Stream<K, T, M>>,
    /// Frames waiting, by group: one entry almost always.
    groups: Vec<(u64, usize)>,
    /// Frames waiting.
    frames: usize,
    /// Cuts waiting.
    cuts: usize,
    /// The number of the next arrival. Numbers, unlike times, are never equal.
    arrivals: u64,
    /// What has a lower number is to leave; 0 = nothing is.
    drain: u64,
    /// The stream that was last given a place in a batch in turn.
    served: Option<K>,
    /// The stream that last chose the group in turn.
    chose: Option<K>,
    /// The group of the last batch with frames.
    group: u64,
    stats: Stats,
}

/// Frames and markers are kept apart, ordered by number, so that the next frame is always at hand.
#[derive(Debug)]
struct Stream<K, T, M> {
    key: K,
    frames: VecDeque<Waiting<T>>,
    markers: VecDeque<Placed<M>>,
    cuts: usize,
    leaving: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    arrival: Duration,
    group: u64,
    deadline: Option<Duration>,
    frame: T,
}

#[derive(Debug)]
struct Placed<M> {
    number: u64,
    arrival: Duration,
    cut: Option<Reason>,
    /// `None` only for the cut of a stream that leaves without a word.
    marker: Option<M>,
}

impl<K: Copy + Ord, T, M> Batcher<K, T, M> {
    /// A batcher without streams.
    pub fn new(settings: Settings) -> Self {
        let mut batcher = Self {
            settings,
            size: 1,
            window: None,
            streams: Vec::new(),
            groups: Vec::new(),
            frames: 0,
            cuts: 0,
            arrivals: 0,
            drain: 0,
            served: None,
            chose: None,
            group: 0,
            stats: Stats::default(),
        };
        batcher.configure(settings);
        batcher
    }

    /// Changes the settings at once. Nothing is lost: a stream that holds more than it now may is refused until it
    /// does not.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.size = settings.size.clamp(1, MAX_BATCH_SIZE);
    }

    /// Sets the running time a batch spans, size x frame duration, for [`gap`](Self::gap). `None`: not known.
    pub fn set_window(&mut self, window: Option<Duration>) {
        self.window = window;
    }

    /// Adds a stream. One that is leaving stays instead, behind what it still holds. False if it was there already.
    pub fn join(&mut self, stream: K) -> bool {
        match self.streams.binary_search_by_key(&stream, |stream| stream.key) {
            Ok(index) => std::mem::take(&mut self.streams[index].leaving),
            Err(index) => {
                self.streams.insert(index, Stream::new(stream));
                true
            }
        }
    }

    /// Lets a stream go. What it holds leaves now, like before a cut for [`Reason::Eos`], then the marker if there is
    /// one; then the stream is forgotten. It may join again at any time.
    pub fn leave(&mut self, now: Duration, stream: K, marker: Option<M>) -> Leave<M> {
        let Some(index) = self.find(stream) else {
            return Leave::Unknown(marker);
        };
        let stream = &mut self.streams[index];
        if marker.is_none() && stream.is_empty() {
            self.streams.remove(index);
            return Leave::Leaving;
        }
        stream.leaving = true;
        self.place(now, index, marker, Cut::Before(Reason::Eos));
        Leave::Leaving
    }

    /// Offers a frame of a stream.
    ///
    /// Frames of different groups never share a batch: a group is a number for the caps. `deadline` is a running time.
    pub fn offer(&mut self, now: Duration, stream: K, group: u64, deadline: Option<Duration>, frame: T) -> Offer<T> {
        let Some(index) = self.find(stream) else {
            return Offer::Unknown(frame);
        };
        let stream = &mut self.streams[index];
        if stream.frames.len() >= self.settings.queue.max(self.size) {
            return Offer::Full(frame);
        }
        stream.frames.push_back(Waiting {
            number: self.arrivals,
            arrival: now,
            group,
            deadline,
            frame,
        });
        self.arrivals += 1;
        match self.groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, frames)) => *frames += 1,
            None => self.groups.push((group, 1)),
        }
        self.frames += 1;
        self.stats.frames_in += 1;
        self.stats.peak_waiting = self.stats.peak_waiting.max(self.frames);
        Offer::Queued
    }

    /// Offers something that keeps its place among the frames of its stream: an event, a query.
    pub fn mark(&mut self, now: Duration, stream: K, marker: M, cut: Cut) -> Mark<M> {
        let Some(index) = self.find(stream) else {
            return Mark::Unknown(marker);
        };
        if self.streams[index].markers.len() >= MAX_MARKERS {
            return Mark::Full(marker);
        }
        self.place(now, index, Some(marker), cut);
        if self.streams[index].markers.len() == MAX_MARKERS {
            // The stream is blocked at its next marker, so the frames that would fill the batch cannot come.
            self.drain();
        }
        Mark::Queued
    }

    /// Offers a marker that says that its stream has no frames from `start` to `end`, in running time.
    ///
    /// It cuts if waiting for the stream is pointless: when it ends later than the window after the deadline of the
    /// stream's first frame, or when the stream has no frame waiting at all. Otherwise, or if deadline or window are
    /// not known, or it covers no time, it keeps its place like [`Cut::No`].
    pub fn gap(&mut self, now: Duration, stream: K, start: Duration, end: Duration, marker: M) -> Mark<M> {
        let Some(index) = self.find(stream) else {
            return Mark::Unknown(marker);
        };
        let pointless = match self.streams[index]
            .frames
            .front()
            .map(|first| (first.deadline, self.window))
        {
            None => true,
            Some((Some(deadline), Some(window))) => end > deadline.saturating_add(window),
            Some(_) => false,
        };
        let cut = if pointless && start < end {
            Cut::Before(Reason::Gap)
        } else {
            Cut::No
        };
        self.mark(now, stream, marker, cut)
    }

    /// Lets everything held leave now, markers included, in as many batches as it takes.
    pub fn drain(&mut self) {
        self.drain = self.arrivals;
    }

    /// Throws away what a stream holds and hands it out, in order. The stream stays, unless it was leaving.
    pub fn flush_stream(&mut self, stream: K) -> impl Iterator<Item = Entry<K, T, M>> + use<K, T, M> {
        let index = self.streams.binary_search_by_key(&stream, |stream| stream.key).ok();
        let (frames, markers) = index.map(|index| self.empty(index)).unwrap_or_default();
        let (mut frames, mut markers) = (frames.into_iter().peekable(), markers.into_iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let frame = frames.peek().map(|frame| frame.number);
                let marker = markers.peek().map(|marker| marker.number);
                if marker.is_none_or(|marker| frame.is_some_and(|frame| frame < marker)) {
                    return frames
                        .next()
                        .map(|Waiting { frame, .. }| Entry::Frame { stream, frame });
                }
                if let Some(marker) = markers.next().and_then(|marker| marker.marker) {
                    return Some(Entry::Marker { stream, marker });
                }
            }
        })
    }

    /// What leaves now. The entries of a batch are appended to `into`: per stream in order, a cut last.
    pub fn next(&mut self, now: Duration, into: &mut Vec<Entry<K, T, M>>) -> Next {
        while self.cuts > 0 {
            let Some(index) = self.cut_at_head() else { break };
            let before = into.len();
            let (reason, first_arrival) = self.take_cut(index, into);
            if into.len() > before {
                return self.batch_of_markers(reason, first_arrival);
            }
        }
        if self.frames >= self.size {
            return self.batch(Reason::Full, into);
        }
        if self.cuts > 0 || self.groups.len() > 1 {
            return self.batch(Reason::Caps, into);
        }
        if self.drain > 0 {
            if self
                .frame_waits_since(|frame| frame.number)
                .is_some_and(|number| number < self.drain)
            {
                return self.batch(Reason::Drain, into);
            }
            if let Some(first_arrival) = self.take_drained_markers(into) {
                return self.batch_of_markers(Reason::Drain, first_arrival);
            }
            self.drain = 0;
        }
        let Some(timeout) = self.settings.timeout else {
            return Next::Idle;
        };
        let frame = self
            .frame_waits_since(|frame| frame.arrival)
            .map(|arrival| arrival.saturating_add(timeout));
        if frame.is_some_and(|due| due <= now) {
            return self.batch(Reason::Timeout, into);
        }
        let marker = self
            .lone_marker()
            .map(|(arrival, _, index)| (arrival.saturating_add(timeout), arrival, index));
        match (frame, marker) {
            (_, Some((due, first_arrival, index))) if due <= now => {
                self.streams[index].take_markers(u64::MAX, into);
                self.batch_of_markers(Reason::Timeout, first_arrival)
            }
            (Some(frame), Some((marker, ..))) => Next::WaitUntil(frame.min(marker)),
            (Some(due), None) | (None, Some((due, ..))) => Next::WaitUntil(due),
            (None, None) => Next::Idle,
        }
    }

    /// Frames waiting.
    pub fn waiting(&self) -> usize {
        self.frames
    }

    /// True if neither frames nor markers are held.
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(Stream::is_empty)
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        Stats {
            streams: self.streams.len(),
            waiting: self.frames,
            ..self.stats
        }
    }

    /// The place of a stream that may still be offered something.
    fn find(&self, stream: K) -> Option<usize> {
        let index = self.streams.binary_search_by_key(&stream, |stream| stream.key).ok()?;
        (!self.streams[index].leaving).then_some(index)
    }

    fn place(&mut self, now: Duration, index: usize, marker: Option<M>, cut: Cut) {
        let cut = match cut {
            Cut::No => None,
            Cut::Before(reason) => Some(reason),
        };
        let stream = &mut self.streams[index];
        stream.markers.push_back(Placed {
            number: self.arrivals,
            arrival: now,
            cut,
            marker,
        });
        stream.cuts += usize::from(cut.is_some());
        self.cuts += usize::from(cut.is_some());
        self.arrivals += 1;
    }

    fn empty(&mut self, index: usize) -> (VecDeque<Waiting<T>>, VecDeque<Placed<M>>) {
        let stream = &mut self.streams[index];
        let (frames, markers) = (std::mem::take(&mut stream.frames), std::mem::take(&mut stream.markers));
        self.cuts -= std::mem::take(&mut stream.cuts);
        if stream.leaving {
            self.streams.remove(index);
        }
        for frame in &frames {
            self.uncount(frame.group);
        }
        self.stats.frames_flushed += frames.len() as u64;
        (frames, markers)
    }

    fn uncount(&mut self, group: u64) {
        self.frames -= 1;
        let known = self
            .groups
            .iter()
            .position(|(known, _)| *known == group)
            .expect("a waiting frame is counted");
        self.groups[known].1 -= 1;
        if self.groups[known].1 == 0 {
            self.groups.swap_remove(known);
        }
    }

    /// The lowest number or time among the frames that are first in their streams.
    fn frame_waits_since<V: Ord>(&self, of: impl Fn(&Waiting<T>) -> V) -> Option<V> {
        self.streams
            .iter()
            .filter_map(|stream| stream.frames.front())
            .map(of)
            .min()
    }

    /// Of the markers that are first in streams without frames: the oldest, and its stream. Only without cuts.
    fn lone_marker(&self) -> Option<(Duration, u64, usize)> {
        let lone = self
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.frames.is_empty());
        lone.filter_map(|(index, stream)| stream.markers.front().map(|first| (first.arrival, first.number, index)))
            .min()
    }

    /// The stream with the oldest cut that no frame stands before.
    fn cut_at_head(&self) -> Option<usize> {
        let cuts = self.streams.iter().enumerate().filter(|(_, stream)| stream.cuts > 0);
        cuts.filter(|(_, stream)| stream.head().is_none())
            .min_by_key(|(_, stream)| stream.cut())
            .map(|(index, _)| index)
    }

    /// Takes the first cut of a stream that has it at its head, and the markers before it.
    fn take_cut(&mut self, index: usize, into: &mut Vec<Entry<K, T, M>>) -> (Reason, Duration) {
        let stream = &mut self.streams[index];
        let first_arrival = stream.markers.front().expect("the cut is a marker").arrival;
        stream.take_markers(stream.cut(), into);
        let cut = stream.markers.pop_front().expect("the cut is next");
        stream.cuts -= 1;
        self.cuts -= 1;
        if let Some(marker) = cut.marker {
            into.push(Entry::Marker {
                stream: stream.key,
                marker,
            });
        }
        if stream.leaving && stream.is_empty() {
            self.streams.remove(index);
        }
        (cut.cut.expect("a cut has a reason"), first_arrival)
    }

    /// Takes the markers to be drained that no frame stands before. There is no cut at the head of any stream.
    fn take_drained_markers(&mut self, into: &mut Vec<Entry<K, T, M>>) -> Option<Duration> {
        let mut first_arrival: Option<Duration> = None;
        for stream in &mut self.streams {
            let arrival = stream.markers.front().map(|first| first.arrival);
            let end = self
                .drain
                .min(stream.frames.front().map_or(u64::MAX, |frame| frame.number));
            if stream.take_markers(end, into) {
                first_arrival = first_arrival.map_or(arrival, |first| arrival.map(|arrival| arrival.min(first)));
            }
        }
        first_arrival
    }

    fn batch_of_markers(&mut self, reason: Reason, first_arrival: Duration) -> Next {
        self.stats.marker_batches += 1;
        Next::Batch {
            group: self.group,
            frames: 0,
            reason,
            first_arrival,
        }
    }

    /// Takes a batch. There is a frame, and no cut at the head of any stream.
    fn batch(&mut self, due: Reason, into: &mut Vec<Entry<K, T, M>>) -> Next {
        self.group = self.choose_group();
        let mut frames = 0;
        let mut first_arrival = Duration::MAX;
        while frames < self.size {
            let Some(index) = self.choose_stream() else { break };
            first_arrival = first_arrival.min(self.take_frame(index, into));
            frames += 1;
        }
        let cut = if self.cuts > 0 { self.cut_at_head() } else { None };
        let cut = cut.map(|index| self.take_cut(index, into).0);
        let reason = match cut {
            _ if frames == self.size => Reason::Full,
            Some(reason) => reason,
            // All frames of this group that could go have gone.
            None if self.frames > 0 => Reason::Caps,
            None => due,
        };
        if cut.is_none() && self.drain > 0 {
            self.take_drained_markers(into);
        }
        self.stats.frames_out += frames as u64;
        self.stats.batches += 1;
        self.stats.batches_by_reason[reason as usize] += 1;
        Next::Batch {
            group: self.group,
            frames,
            reason,
            first_arrival,
        }
    }

    /// The group of the next batch. By arrival the oldest frame decides; otherwise a stream at the head of whose queue
    /// a frame waits, in turn, so that no group waits for another for ever and streams decide equally often.
    fn choose_group(&mut self) -> u64 {
        if let [(group, _)] = self.groups[..] {
            return group;
        }
        let index = match self.settings.policy {
            Policy::Arrival => self.least(None, |frame| frame.number),
            Policy::RoundRobin | Policy::EarliestDeadline => {
                let index = self.in_turn(self.chose, None);
                self.chose = index.map(|index| self.streams[index].key);
                index
            }
        };
        index
            .and_then(|index| self.streams[index].head())
            .expect("a stream has a frame at its head")
            .group
    }

    /// The stream whose frame is next to go into the batch.
    fn choose_stream(&mut self) -> Option<usize> {
        let group = Some(self.group);
        match self.settings.policy {
            Policy::Arrival => self.least(group, |frame| frame.number),
            Policy::EarliestDeadline => {
                self.least(group, |frame| (frame.deadline.is_none(), frame.deadline, frame.number))
            }
            Policy::RoundRobin => {
                let index = self.in_turn(self.served, group)?;
                self.served = Some(self.streams[index].key);
                Some(index)
            }
        }
    }

    fn least<V: Ord>(&self, group: Option<u64>, of: impl Fn(&Waiting<T>) -> V) -> Option<usize> {
        let mut least: Option<(V, usize)> = None;
        for (index, stream) in self.streams.iter().enumerate() {
            let Some(head) = stream.head() else { continue };
            if group.is_some_and(|group| head.group != group) {
                continue;
            }
            let value = of(head);
            if least.as_ref().is_none_or(|(least, _)| value < *least) {
                least = Some((value, index));
            }
        }
        least.map(|(_, index)| index)
    }

    /// The first stream behind `last`, round and round, with a frame at its head.
    fn in_turn(&self, last: Option<K>, group: Option<u64>) -> Option<usize> {
        let start = last.map_or(0, |last| self.streams.partition_point(|stream| stream.key <= last));
        (start..self.streams.len()).chain(0..start).find(|index| {
            self.streams[*index]
                .head()
                .is_some_and(|head| group.is_none_or(|group| head.group == group))
        })
    }

    fn take_frame(&mut self, index: usize, into: &mut Vec<Entry<K, T, M>>) -> Duration {
        let stream = &mut self.streams[index];
        let Waiting {
            number,
            arrival,
            group,
            frame,
            ..
        } = stream.frames.pop_front().expect("a head was chosen");
        stream.take_markers(number, into);
        into.push(Entry::Frame {
            stream: stream.key,
            frame,
        });
        self.uncount(group);
        arrival
    }
}

impl<K: Copy, T, M> Stream<K, T, M> {
    fn new(key: K) -> Self {
        Self {
            key,
            frames: VecDeque::new(),
            markers: VecDeque::new(),
            cuts: 0,
            leaving: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.markers.is_empty()
    }

    /// The first frame, unless a cut stands before it.
    fn head(&self) -> Option<&Waiting<T>> {
        self.frames
            .front()
            .filter(|frame| self.cuts == 0 || frame.number < self.cut())
    }

    /// The number of the first cut.
    fn cut(&self) -> u64 {
        if self.cuts == 0 {
            return u64::MAX;
        }
        self.markers
            .iter()
            .find(|marker| marker.cut.is_some())
            .map_or(u64::MAX, |marker| marker.number)
    }

    /// Takes the markers with lower numbers, none of which is a cut. True if there were any.
    fn take_markers(&mut self, end: u64, into: &mut Vec<Entry<K, T, M>>) -> bool {
        let before = into.len();
        while self.markers.front().is_some_and(|marker| marker.number < end)
            && let Some(marker) = self.markers.pop_front()
        {
            let stream = self.key;
            into.extend(marker.marker.map(|marker| Entry::Marker { stream, marker }));
        }
        into.len() > before
    }
}
