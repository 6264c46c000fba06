//! The settings that both elements have: where, and with which rights.

use std::path::PathBuf;

use comfy_core::trickle::client::{Client, Config};
use comfy_core::trickle::wire::ChannelUrl;
use gst::{ErrorMessage, error_msg};

use crate::error;

/// The schemes that the elements are handlers of.
pub(crate) const SCHEMES: &[&str] = &["trickle", "trickles"];

/// With which rights, and whom to trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) token: Option<String>,
    pub(crate) insecure_tls: bool,
    pub(crate) ca_file: Option<String>,
}

impl Access {
    /// A client without connections.
    pub(crate) fn client(&self) -> Result<Client, ErrorMessage> {
        let config = Config {
            token: self.token.as_deref().map(Into::into),
            insecure: self.insecure_tls,
            ca: self.ca_file.as_deref().map(PathBuf::from),
            ..Config::default()
        };
        Client::new(config).map_err(|error| error::client(&error))
    }
}

/// The addresses in a `url` property, the first one first.
pub(crate) fn urls(text: Option<&str>) -> Result<Vec<ChannelUrl>, ErrorMessage> {
    let text = text.unwrap_or_default().trim();
    if text.is_empty() {
        return Err(error_msg!(
            gst::ResourceError::Settings,
            ("url: there is none; set it to the channel's address, like trickle://localhost:3389/cam")
        ));
    }
    let urls = text.split(',').map(|url| ChannelUrl::parse(url.trim()));
    urls.collect::<Result<_, _>>().map_err(|error| error::url(&error))
}

/// Checks a URI as the URI handler interface wants it.
pub(crate) fn check_uri(uri: &str) -> Result<(), glib::Error> {
    urls(Some(uri)).map(drop).map_err(|_| {
        glib::Error::new(
            gst::URIError::BadUri,
            &format!("{uri}: expected trickle://HOST[:PORT]/CHANNEL"),
        )
    })
}
