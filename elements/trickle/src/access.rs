//! The settings that both elements have: where, and with which rights.

use std::path::PathBuf;

use comfy_core::trickle::client::{Client, Config};
use comfy_core::trickle::wire::ChannelUrl;
use gst::prelude::*;
use gst::{ErrorMessage, error_msg};

use crate::error;

/// The schemes that the elements are handlers of.
pub(crate) const SCHEMES: &[&str] = &["trickle", "trickles"];

const PROP_TOKEN: &str = "token";
const PROP_INSECURE_TLS: &str = "insecure-tls";
const PROP_CA_FILE: &str = "ca-file";

/// With which rights, and whom to trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    token: Option<String>,
    insecure_tls: bool,
    ca_file: Option<String>,
}

impl Access {
    /// Its properties; `token` says what it is for.
    pub(crate) fn properties(token: &'static str) -> [glib::ParamSpec; 3] {
        [
            glib::ParamSpecString::builder(PROP_TOKEN)
                .nick("Token")
                .blurb(token)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder(PROP_INSECURE_TLS)
                .nick("Insecure TLS")
                .blurb("Trust any certificate: anybody on the way can read and change what is sent. For tests; prefer ca-file")
                .default_value(false)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder(PROP_CA_FILE)
                .nick("CA File")
                .blurb("PEM file with certificates of authorities to trust besides the system's (null = none)")
                .mutable_ready()
                .build(),
        ]
    }

    pub(crate) fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            PROP_TOKEN => self.token = value.get().expect("type checked by GObject"),
            PROP_INSECURE_TLS => self.insecure_tls = value.get().expect("type checked by GObject"),
            PROP_CA_FILE => self.ca_file = value.get().expect("type checked by GObject"),
            name => unreachable!("property {name} is not writable"),
        }
    }

    pub(crate) fn get(&self, name: &str) -> glib::Value {
        match name {
            PROP_TOKEN => self.token.to_value(),
            PROP_INSECURE_TLS => self.insecure_tls.to_value(),
            PROP_CA_FILE => self.ca_file.to_value(),
            name => unreachable!("no property {name}"),
        }
    }

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

/// Checks a URI as the URI handler interface wants it; once `started`, none is taken.
pub(crate) fn check_uri(uri: &str, started: bool) -> Result<(), glib::Error> {
    let refused = |code, why: &str| Err(glib::Error::new(code, &format!("{uri}: {why}")));
    if urls(Some(uri)).is_err() {
        return refused(gst::URIError::BadUri, "expected trickle://HOST[:PORT]/CHANNEL");
    }
    if started {
        return refused(
            gst::URIError::BadState,
            "the address can only be changed in READY or below",
        );
    }
    Ok(())
}
