//! The RTP header extension that tells a receiver how long it may hold a picture.
//!
//! Browsers smooth motion by showing pictures later than they could. Told that nobody wants to wait, they show each
//! when it is complete. Source: <https://webrtc.googlesource.com/src/+/main/docs/native-code/rtp-hdrext/playout-delay>.

use gst::subclass::prelude::*;
use gst_rtp::RTPHeaderExtensionFlags as Flags;
use gst_rtp::prelude::*;
use gst_rtp::subclass::prelude::*;

use super::rtp::PLAYOUT_DELAY;

/// The least and the most, in units of 10 ms and 12 bits each: none, and none.
const AT_ONCE: [u8; 3] = [0; 3];

glib::wrapper! {
    /// Says in every packet that pictures are to be shown at once.
    pub struct PlayoutDelay(ObjectSubclass<imp::PlayoutDelay>)
        @extends gst_rtp::RTPHeaderExtension, gst::Element, gst::Object;
}

impl PlayoutDelay {
    /// With the number that the peer gave it.
    pub fn new(number: u8) -> Self {
        let extension: Self = glib::Object::new();
        extension.set_id(number.into());
        extension
    }
}

mod imp {
    use super::*;

    #[derive(Debug, Default)]
    pub struct PlayoutDelay;

    #[glib::object_subclass]
    impl ObjectSubclass for PlayoutDelay {
        const NAME: &'static str = "ComfyPlayoutDelay";
        type Type = super::PlayoutDelay;
        type ParentType = gst_rtp::RTPHeaderExtension;
    }

    impl ObjectImpl for PlayoutDelay {}
    impl GstObjectImpl for PlayoutDelay {}
    impl ElementImpl for PlayoutDelay {}

    impl RTPHeaderExtensionImpl for PlayoutDelay {
        const URI: &'static str = PLAYOUT_DELAY;

        fn supported_flags(&self) -> Flags {
            Flags::ONE_BYTE | Flags::TWO_BYTE
        }

        fn max_size(&self, _input: &gst::BufferRef) -> usize {
            AT_ONCE.len()
        }

        fn write(
            &self,
            _input: &gst::BufferRef,
            _flags: Flags,
            _output: &gst::BufferRef,
            data: &mut [u8],
        ) -> Result<usize, gst::LoggableError> {
            let place = data
                .get_mut(..AT_ONCE.len())
                .ok_or_else(|| gst::loggable_error!(gst::CAT_RUST, "no room for {} bytes", AT_ONCE.len()))?;
            place.copy_from_slice(&AT_ONCE);
            Ok(AT_ONCE.len())
        }

        fn read(&self, _: Flags, _: &[u8], _: &mut gst::BufferRef) -> Result<(), gst::LoggableError> {
            Ok(())
        }
    }
}
