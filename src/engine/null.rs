//! Engines without a model: calibrated in time, and with faults on demand.
//!
//! - `builtin:null`: the identity. Takes its time and touches no tensor.
//! - `builtin:null?copy=true`: the same by way of tensors (u8, BHWC, RGB).
//! - `builtin:invert`: 255 minus each byte (u8, BHWC, RGB).
//!
//! All take these settings, `builtin:null?base=2ms&per-image=1.5ms`:
//!
//! | key | meaning |
//! |---|---|
//! | `base`, `per-image` | one run lasts base + per-image * count, measured from when the engine is free |
//! | `stall-every`, `stall` | every so many runs, one lasts this much longer |
//! | `fail-after`, `fail-count` | so many runs work, then so many fail (default: all), then they work again |
//! | `nan-after` | after so many runs the output is NaN; the tensors are then f32, 0 to 1 |
//! | `panic` | `run` or `input`: the call of that name panics |
//! | `copy` | `true`: go through tensors; `null` only |
//! | `load` | opening lasts this long, or until it is cancelled |
//! | `load-fails` | `true`: opening fails, when `load` is over |
//!
//! Runs are counted over all lanes of one engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::turn::{Halt, Turn};
use super::{BatchSizes, Cancel, Engine, Error, Geometry, ImagePort, Interrupt, Lane, LaneRequest, Port, Role, Spec};
use crate::tensor::{ChannelOrder, DType, Dim, ImageTensor, Layout, TensorMut, TensorRef};

/// What a name begins with that stands for an engine without a model.
pub const PREFIX: &str = "builtin:";

/// Most images in one batch of a built-in engine, and of a model that sets no limit itself.
pub const MAX_BATCH: usize = 64;

/// A condition variable wakes late by about this much: the rest is spun, so that a run takes what it says.
const SPIN: Duration = Duration::from_micros(150);

/// Longest time a setting may ask for.
const MAX_TIME: Duration = Duration::from_secs(3600);

/// Opens `builtin:NAME?key=value&...`.
pub fn open(model: &str) -> Result<Arc<dyn Engine>, Error> {
    open_with(model, &Cancel::default())
}

/// The same, for as long as nobody cancels it.
pub fn open_with(model: &str, cancel: &Cancel) -> Result<Arc<dyn Engine>, Error> {
    open_parsed(Settings::parse(model)?, model, cancel).map(|engine| Arc::new(engine) as Arc<dyn Engine>)
}

/// The same on a GPU of this number: frames are converted, copied and inverted there. The identity touches no frame
/// wherever it is.
#[cfg(feature = "cuda")]
pub fn open_on(model: &str, ordinal: u32, cancel: &Cancel) -> Result<Arc<dyn Engine>, Error> {
    let settings = Settings::parse(model)?;
    if settings.nan_after.is_some() || settings.panic == Some(PanicIn::Input) {
        return Err(Error::Setting(format!(
            "model `{model}`: nan-after and panic=input are about tensors in main memory; set `backend` to cpu"
        )));
    }
    let mut engine = open_parsed(settings, model, cancel)?;
    let open = || {
        let device = crate::cuda::Device::open(ordinal as usize)?;
        Ok((device.clone(), Arc::new(crate::cuda::Stream::new(&device)?)))
    };
    let (device, stream) = open().map_err(|error: crate::cuda::Error| Error::Backend {
        backend: "cuda",
        reason: error.to_string(),
    })?;
    engine.spec.runtime = format!("{} on {}, device {ordinal}", engine.spec.runtime, device.name());
    engine.side = Some((device, stream));
    Ok(Arc::new(engine))
}

fn open_parsed(settings: Settings, model: &str, cancel: &Cancel) -> Result<Null, Error> {
    cancel.wait(settings.load)?;
    if settings.load_fails {
        return Err(Error::NotAModel {
            path: model.into(),
            reason: "it was asked to fail with load-fails".into(),
        });
    }
    let spec = settings.spec(model);
    Ok(Null {
        shared: Arc::new(Shared {
            settings,
            runs: AtomicU64::new(0),
            turn: Arc::default(),
        }),
        spec,
        #[cfg(feature = "cuda")]
        side: None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Nothing,
    Copy,
    Invert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PanicIn {
    Run,
    Input,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    work: Work,
    base: Duration,
    per_image: Duration,
    stall_every: u64,
    stall: Duration,
    fail_after: Option<u64>,
    fail_count: u64,
    nan_after: Option<u64>,
    panic: Option<PanicIn>,
    load: Duration,
    load_fails: bool,
}

impl Settings {
    fn parse(model: &str) -> Result<Self, Error> {
        let wrong = |text: String| Error::Setting(format!("model `{model}`: {text}"));
        let rest = model
            .strip_prefix(PREFIX)
            .ok_or_else(|| wrong(format!("does not begin with {PREFIX}")))?;
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut settings = Settings {
            work: match name {
                "null" => Work::Nothing,
                "invert" => Work::Invert,
                _ => return Err(wrong("there are `builtin:null` and `builtin:invert`".into())),
            },
            base: Duration::ZERO,
            per_image: Duration::ZERO,
            stall_every: 0,
            stall: Duration::ZERO,
            fail_after: None,
            fail_count: u64::MAX,
            nan_after: None,
            panic: None,
            load: Duration::ZERO,
            load_fails: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong(format!("`{pair}` is not key=value")))?;
            let number = || {
                value
                    .parse()
                    .map_err(|_| wrong(format!("{key}={value}: expected a whole number")))
            };
            let time = || {
                parse_time(value).ok_or_else(|| {
                    wrong(format!(
                        "{key}={value}: expected a time such as 500us, 1.5ms or 2s, at most one hour"
                    ))
                })
            };
            let flag = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(wrong(format!("{key}={value}: expected true or false"))),
            };
            match key {
                "base" => settings.base = time()?,
                "per-image" => settings.per_image = time()?,
                "stall-every" => settings.stall_every = number()?,
                "stall" => settings.stall = time()?,
                "fail-after" => settings.fail_after = Some(number()?),
                "fail-count" => settings.fail_count = number()?,
                "nan-after" => settings.nan_after = Some(number()?),
                "panic" => {
                    settings.panic = Some(match value {
                        "run" => PanicIn::Run,
                        "input" => PanicIn::Input,
                        _ => return Err(wrong(format!("panic={value}: expected run or input"))),
                    });
                }
                "copy" if settings.work != Work::Invert => {
                    settings.work = if flag()? { Work::Copy } else { Work::Nothing };
                }
                "load" => settings.load = time()?,
                "load-fails" => settings.load_fails = flag()?,
                _ => {
                    return Err(wrong(format!(
                        "unknown key `{key}`; there are base, per-image, stall-every, stall, fail-after, fail-count, \
                         nan-after, panic, load, load-fails and, for null, copy"
                    )));
                }
            }
        }
        // Not-a-number and a panic in `input` need tensors to show in.
        let tensors = settings.nan_after.is_some() || settings.panic == Some(PanicIn::Input);
        if settings.work == Work::Nothing && tensors {
            settings.work = Work::Copy;
        }
        Ok(settings)
    }

    fn dtype(&self) -> DType {
        if self.nan_after.is_some() {
            DType::F32
        } else {
            DType::U8
        }
    }

    fn image(&self) -> ImagePort {
        let scale = match self.dtype() {
            DType::U8 => 1.0,
            _ => 1.0 / 255.0,
        };
        ImagePort {
            layout: Layout::Bhwc,
            order: ChannelOrder::Rgb,
            scale: [scale; 3],
            bias: [0.0; 3],
            width: None,
            height: None,
        }
    }

    fn spec(&self, model: &str) -> Spec {
        let dynamic = |name: &str| Dim::Dynamic(name.into());
        let port = |name: &str| Port {
            name: name.into(),
            dtype: self.dtype(),
            shape: vec![dynamic("batch"), dynamic("height"), dynamic("width"), Dim::Fixed(3)],
            role: Role::Image(self.image()),
        };
        Spec {
            name: model.into(),
            inputs: vec![port("image")],
            outputs: vec![port("result")],
            batch: BatchSizes::UpTo(MAX_BATCH),
            runtime: format!("built in, {:?} + {:?} per image", self.base, self.per_image),
        }
    }

    /// How long a run of `count` images lasts, when `before` runs were made before it.
    fn time(&self, count: usize, before: u64) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let stalls = self.stall_every > 0 && (before + 1).is_multiple_of(self.stall_every);
        let stall = if stalls { self.stall } else { Duration::ZERO };
        self.base
            .saturating_add(self.per_image.saturating_mul(count))
            .saturating_add(stall)
    }

    fn fails(&self, before: u64) -> bool {
        self.fail_after
            .is_some_and(|after| before >= after && before - after < self.fail_count)
    }
}

/// `500us`, `1.5ms`, `2s`; a bare 0 needs no unit.
fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-6)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else {
        return (text == "0").then_some(Duration::ZERO);
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time <= MAX_TIME)
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    runs: AtomicU64,
    turn: Arc<Turn>,
}

#[derive(Debug)]
struct Null {
    shared: Arc<Shared>,
    spec: Spec,
    /// The GPU that it runs on, and the stream of its work.
    #[cfg(feature = "cuda")]
    side: Option<(Arc<crate::cuda::Device>, Arc<crate::cuda::Stream>)>,
}

impl Null {
    fn geometry(&self, request: &LaneRequest) -> Geometry {
        let settings = &self.shared.settings;
        let port = settings.image();
        let image = ImageTensor {
            dtype: settings.dtype(),
            planar: false,
            order: port.order,
            width: request.width,
            height: request.height,
            scale: port.scale,
            bias: port.bias,
        };
        Geometry {
            input: image,
            output: Some((0, image)),
            tensors: Vec::new(),
        }
    }

    /// With so many elements an image; none: it takes its time, and nothing else.
    fn main_lane(&self, request: &LaneRequest, elements: usize) -> NullLane {
        let settings = &self.shared.settings;
        let values = |count: usize| match settings.dtype() {
            DType::F32 => Values::F32(vec![0.0; count]),
            _ => Values::U8(vec![0; count]),
        };
        NullLane {
            name: self.spec.name.clone(),
            halt: Arc::new(Halt::new(self.shared.turn.clone())),
            shared: self.shared.clone(),
            geometry: self.geometry(request),
            elements,
            capacity: request.batch,
            input: values(elements * request.batch),
            output: values(elements * request.batch),
        }
    }
}

impl Engine for Null {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn is_identity(&self) -> bool {
        self.shared.settings.work == Work::Nothing
    }

    fn lane(&self, request: &LaneRequest) -> Result<Box<dyn Lane>, Error> {
        request.check()?;
        let elements = match self.shared.settings.work {
            Work::Nothing => 0,
            Work::Copy | Work::Invert => self.geometry(request).input.len(),
        };
        Ok(Box::new(self.main_lane(request, elements)))
    }

    #[cfg(feature = "cuda")]
    fn device(&self) -> Option<Arc<crate::cuda::Device>> {
        // The identity's lanes hold nothing, so that any place is theirs.
        let side = self.side.as_ref().filter(|_| !self.is_identity());
        side.map(|(device, _)| device.clone())
    }

    #[cfg(feature = "cuda")]
    fn device_lane(&self, request: &LaneRequest) -> Result<Box<dyn super::device::DeviceLane>, Error> {
        use super::null_device::NullDeviceLane;

        request.check()?;
        let (device, stream) = self
            .side
            .as_ref()
            .ok_or_else(|| Error::Setting(format!("model {} was opened on the processor", self.spec.name)))?;
        let lane = NullDeviceLane::new(
            device,
            stream,
            request,
            Box::new(self.main_lane(request, 0)),
            (&self.spec.name, self.shared.settings.work == Work::Invert),
        )?;
        Ok(Box::new(lane))
    }
}

#[derive(Debug)]
enum Values {
    U8(Vec<u8>),
    F32(Vec<f32>),
}

struct NullLane {
    name: String,
    shared: Arc<Shared>,
    halt: Arc<Halt>,
    geometry: Geometry,
    /// Of one image; 0 for the identity.
    elements: usize,
    capacity: usize,
    input: Values,
    output: Values,
}

impl NullLane {
    fn work(&mut self, count: usize, before: u64) {
        let settings = &self.shared.settings;
        let end = self.elements * count;
        match (&self.input, &mut self.output) {
            (Values::U8(input), Values::U8(output)) => match settings.work {
                Work::Nothing => {}
                Work::Copy => output[..end].copy_from_slice(&input[..end]),
                Work::Invert => {
                    for (to, from) in output[..end].iter_mut().zip(&input[..end]) {
                        *to = 255 - from;
                    }
                }
            },
            (Values::F32(input), Values::F32(output)) => {
                if settings.nan_after.is_some_and(|after| before >= after) {
                    output[..end].fill(f32::NAN);
                } else if settings.work == Work::Invert {
                    for (to, from) in output[..end].iter_mut().zip(&input[..end]) {
                        *to = 1.0 - from;
                    }
                } else {
                    output[..end].copy_from_slice(&input[..end]);
                }
            }
            _ => unreachable!("both are made with the same type"),
        }
    }
}

impl Lane for NullLane {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn input(&mut self, slot: usize) -> TensorMut<'_> {
        assert!(
            self.shared.settings.panic != Some(PanicIn::Input),
            "asked for with panic=input"
        );
        assert!(slot < self.capacity, "slot {slot} of a batch of {}", self.capacity);
        let range = slot * self.elements..(slot + 1) * self.elements;
        match &mut self.input {
            Values::U8(values) => TensorMut::U8(&mut values[range]),
            Values::F32(values) => TensorMut::F32(&mut values[range]),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the calibrated time of a run is real time, not pipeline time"
    )]
    fn run(&mut self, count: usize) -> Result<(), Error> {
        assert!(count <= self.capacity, "{count} images in a batch of {}", self.capacity);
        let mark = self.halt.mark();
        let shared = self.shared.clone();
        let _turn = shared.turn.take(&self.halt, mark)?;
        let start = Instant::now();
        assert!(shared.settings.panic != Some(PanicIn::Run), "asked for with panic=run");
        let before = shared.runs.fetch_add(1, Ordering::Relaxed);
        if shared.settings.fails(before) {
            let reason = format!("run {} was asked to fail with fail-after", before + 1);
            return Err(Error::Run {
                model: self.name.clone(),
                reason,
            });
        }
        self.work(count, before);
        let time = shared.settings.time(count, before);
        loop {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            if left > SPIN {
                self.halt.sleep(mark, left - SPIN)?;
            } else {
                self.halt.check(mark)?;
                std::hint::spin_loop();
            }
        }
    }

    fn output(&self, port: usize, slot: usize) -> TensorRef<'_> {
        assert!(port == 0, "output {port} of an engine with one");
        assert!(slot < self.capacity, "slot {slot} of a batch of {}", self.capacity);
        let range = slot * self.elements..(slot + 1) * self.elements;
        match &self.output {
            Values::U8(values) => TensorRef::U8(&values[range]),
            Values::F32(values) => TensorRef::F32(&values[range]),
        }
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.halt.clone()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests measure real time")]
mod tests {
    use super::*;

    fn lane(model: &str, batch: usize) -> Box<dyn Lane> {
        let engine = open(model).expect(model);
        engine
            .lane(&LaneRequest {
                width: 4,
                height: 2,
                batch,
            })
            .expect("a lane")
    }

    fn fill(lane: &mut dyn Lane, slot: usize, value: u8) {
        match lane.input(slot) {
            TensorMut::U8(bytes) => bytes.fill(value),
            TensorMut::F32(values) => values.fill(f32::from(value) / 255.0),
            TensorMut::F16(_) => unreachable!("no built-in engine takes f16"),
        }
    }

    fn bytes(lane: &dyn Lane, slot: usize) -> Vec<u8> {
        lane.output(0, slot).to_bytes()
    }

    #[test]
    fn settings_are_read() {
        let settings = Settings::parse("builtin:null?base=2ms&per-image=1.5ms&stall-every=100&stall=50ms").unwrap();
        assert_eq!(settings.work, Work::Nothing);
        assert_eq!(settings.time(2, 0), Duration::from_millis(5));
        assert_eq!(settings.time(2, 98), Duration::from_millis(5));
        assert_eq!(settings.time(2, 99), Duration::from_millis(55));
        assert_eq!(Settings::parse("builtin:null?copy=true").unwrap().work, Work::Copy);
        assert_eq!(Settings::parse("builtin:null?base=0").unwrap().base, Duration::ZERO);
    }

    #[test]
    fn wrong_settings_are_refused_by_name() {
        for (model, part) in [
            ("builtin:nul", "there are `builtin:null`"),
            ("builtin:null?bas=1ms", "unknown key `bas`"),
            ("builtin:invert?copy=true", "unknown key `copy`"),
            ("builtin:null?base=1", "base=1: expected a time"),
            ("builtin:null?base=-1ms", "base=-1ms: expected a time"),
            ("builtin:null?base=NaNms", "expected a time"),
            ("builtin:null?base=1e300s", "at most one hour"),
            ("builtin:null?stall-every=x", "stall-every=x: expected a whole number"),
            ("builtin:null?panic=now", "expected run or input"),
            ("builtin:null?copy", "`copy` is not key=value"),
            ("builtin:null?load-fails=yes", "load-fails=yes: expected true or false"),
            ("builtin:null?load-fails=true", "asked to fail with load-fails"),
        ] {
            let text = open(model).err().expect(model).to_string();
            assert!(text.contains(part), "{model}: {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(rest in ".{0,60}") {
            let _ = open(&format!("{PREFIX}{rest}"));
            let _ = open(&format!("builtin:null?{rest}"));
        }
    }

    #[test]
    fn a_long_opening_lasts_until_it_is_cancelled() {
        let cancel = Cancel::default();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| open_with("builtin:null?load=3600s", &cancel).err());
            cancel.cancel();
            assert_eq!(opening.join().unwrap(), Some(Error::Interrupted));
        });
        assert!(open_with("builtin:null", &cancel).is_err());
        let start = Instant::now();
        assert!(open("builtin:null?load=20ms").is_ok());
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn the_identity_touches_no_tensor() {
        let engine = open("builtin:null").unwrap();
        assert!(engine.is_identity());
        let mut lane = engine
            .lane(&LaneRequest {
                width: 3840,
                height: 2160,
                batch: 8,
            })
            .unwrap();
        assert!(lane.input(7).is_empty());
        assert_eq!(lane.run(8), Ok(()));
        assert!(lane.output(0, 7).is_empty());
    }

    #[test]
    fn copy_and_invert_give_each_slot_its_own() {
        for (model, expected) in [("builtin:null?copy=true", [3, 200]), ("builtin:invert", [252, 55])] {
            let mut lane = lane(model, 2);
            fill(&mut *lane, 0, 3);
            fill(&mut *lane, 1, 200);
            lane.run(2).unwrap();
            for (slot, value) in expected.into_iter().enumerate() {
                assert_eq!(bytes(&*lane, slot), [value; 24], "{model}");
            }
        }
    }

    #[test]
    fn a_run_takes_base_plus_per_image() {
        let mut lane = lane("builtin:null?base=2ms&per-image=1.5ms", 4);
        // None is shorter; that one is hardly longer shows what the engine does when it has the processor.
        let exact = (0..100).any(|_| {
            let start = Instant::now();
            lane.run(4).unwrap();
            let time = start.elapsed();
            assert!(time >= Duration::from_millis(8), "{time:?}");
            time < Duration::from_micros(8500)
        });
        assert!(exact, "none of 100 runs took what it should");
    }

    #[test]
    fn lanes_of_one_engine_run_one_at_a_time() {
        let engine = open("builtin:null?base=10ms").unwrap();
        let request = LaneRequest {
            width: 4,
            height: 2,
            batch: 1,
        };
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut lane = engine.lane(&request).unwrap();
                scope.spawn(move || lane.run(1).unwrap());
            }
        });
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn a_long_run_ends_when_stopped_and_works_after_resume() {
        let mut lane = lane("builtin:null?per-image=60s", 1);
        let interrupt = lane.interrupt();
        let start = Instant::now();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| lane.run(1));
            interrupt.stop();
            assert_eq!(run.join().unwrap(), Err(Error::Interrupted));
        });
        assert_eq!(lane.run(1), Err(Error::Interrupted));
        interrupt.resume();
        assert_eq!(lane.run(0), Ok(()));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn it_fails_as_often_as_asked() {
        let mut lane = lane("builtin:null?fail-after=2&fail-count=3", 1);
        let good: Vec<bool> = (0..7).map(|_| lane.run(1).is_ok()).collect();
        assert_eq!(good, [true, true, false, false, false, true, true]);
    }

    #[test]
    fn it_gives_nan_as_asked() {
        let mut lane = lane("builtin:null?nan-after=1", 1);
        assert_eq!(lane.geometry().input.dtype, DType::F32);
        fill(&mut *lane, 0, 255);
        lane.run(1).unwrap();
        assert!(matches!(lane.output(0, 0), TensorRef::F32(values) if values.iter().all(|v| *v == 1.0)));
        lane.run(1).unwrap();
        assert!(matches!(lane.output(0, 0), TensorRef::F32(values) if values.iter().all(|v| v.is_nan())));
    }

    #[test]
    fn it_panics_where_asked() {
        let panics = |model: &str, call: fn(&mut dyn Lane)| {
            let mut lane = lane(model, 1);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(&mut *lane))).is_err()
        };
        assert!(panics("builtin:null?panic=run", |lane| drop(lane.run(1))));
        assert!(!panics("builtin:null?panic=run", |lane| assert!(
            lane.input(0).is_empty()
        )));
        assert!(panics("builtin:null?panic=input", |lane| assert!(
            !lane.input(0).is_empty()
        )));
    }

    #[test]
    fn an_engine_works_on_after_a_panic() {
        let engine = open("builtin:null?panic=run").unwrap();
        for _ in 0..2 {
            let mut lane = engine
                .lane(&LaneRequest {
                    width: 4,
                    height: 2,
                    batch: 1,
                })
                .unwrap();
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lane.run(1)));
            assert!(run.is_err(), "the turn was not given back, or the panic did not come");
        }
    }
}
