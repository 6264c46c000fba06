//! How a format travels in RTP packets.
