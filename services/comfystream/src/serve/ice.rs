//! Which servers help peers to find each other, and what proves to them that we may use them.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use comfy_pipelines::rtc::Turn;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha1::Sha1;
use utoipa::ToSchema;

/// STUN and TURN servers, as the options name them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ice {
    pub(crate) stun: Vec<String>,
    pub(crate) turn: Vec<String>,
    pub(crate) proof: Proof,
}

/// What a TURN server is shown.
#[derive(Clone, Default)]
pub(crate) enum Proof {
    /// Nothing: there is no TURN server.
    #[default]
    None,
    /// Always the same.
    Fixed { username: String, credential: String },
    /// A name that ends at a time, signed with a secret that the server has, too.
    Timed {
        secret: String,
        name: Option<String>,
        life: Duration,
    },
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Proof::None => "None",
            Proof::Fixed { .. } => "Fixed",
            Proof::Timed { .. } => "Timed",
        })
    }
}

/// As RTCPeerConnection takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct IceServer {
    pub(crate) urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credential: Option<String>,
}

impl Proof {
    /// Username and credential, at a time in Unix seconds.
    fn at(&self, now: u64) -> Option<(String, String)> {
        match self {
            Proof::None => None,
            Proof::Fixed { username, credential } => Some((username.clone(), credential.clone())),
            Proof::Timed { secret, name, life } => {
                let until = now + life.as_secs();
                let username = match name {
                    Some(name) => format!("{until}:{name}"),
                    None => until.to_string(),
                };
                let credential = sign(secret, &username);
                Some((username, credential))
            }
        }
    }
}

/// As coturn's `use-auth-secret` and draft-uberti-behave-turn-rest-00 have it.
fn sign(secret: &str, username: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

impl Ice {
    /// For browsers, with credentials of this moment.
    pub(crate) fn servers(&self, now: u64) -> Vec<IceServer> {
        let plain = |urls: &[String]| IceServer {
            urls: urls.to_vec(),
            username: None,
            credential: None,
        };
        let mut servers = Vec::new();
        if !self.stun.is_empty() {
            servers.push(plain(&self.stun));
        }
        if !self.turn.is_empty() {
            let mut server = plain(&self.turn);
            if let Some((username, credential)) = self.proof.at(now) {
                (server.username, server.credential) = (Some(username), Some(credential));
            }
            servers.push(server);
        }
        servers
    }

    /// For ourselves, with credentials of this moment.
    pub(crate) fn turn(&self, now: u64) -> Vec<Turn> {
        let (username, credential) = self.proof.at(now).unwrap_or_default();
        let turn = |url: &String| Turn {
            url: url.clone(),
            username: username.clone(),
            credential: credential.clone(),
        };
        self.turn.iter().map(turn).collect()
    }

    /// `Link` headers of WHIP and WHEP (RFC 9725, 4.6).
    pub(crate) fn links(&self, now: u64) -> Vec<String> {
        let mut links = Vec::new();
        for server in self.servers(now) {
            for url in &server.urls {
                let mut link = format!("<{url}>; rel=\"ice-server\"");
                if let (Some(username), Some(credential)) = (&server.username, &server.credential) {
                    link += &format!(
                        "; username={}; credential={}; credential-type=\"password\"",
                        quoted(username),
                        quoted(credential)
                    );
                }
                links.push(link);
            }
        }
        links
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A STUN or TURN URL (RFC 7064, RFC 7065), without what RTCPeerConnection would refuse.
pub(crate) fn url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let (host, query) = rest
        .split_once('?')
        .map_or((rest, None), |(host, query)| (host, Some(query)));
    let name = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((name, port)) => port.is_empty() || port.strip_prefix(':').is_some_and(is_port) && !name.is_empty(),
        None => match host.rsplit_once(':') {
            Some((name, port)) => is_port(port) && !name.contains(':'),
            None => true,
        },
    };
    let graphic = host
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"/<>\"@".contains(&byte));
    let transport = query.is_none_or(|query| matches!(query, "transport=udp" | "transport=tcp"));
    schemes.contains(&scheme) && !host.is_empty() && !host.starts_with(':') && name && graphic && transport
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(name: Option<&str>) -> Ice {
        Ice {
            stun: vec!["stun:stun.example:3478".into()],
            turn: vec![
                "turn:turn.example:3478?transport=udp".into(),
                "turns:turn.example:443".into(),
            ],
            proof: Proof::Timed {
                secret: "north".into(),
                name: name.map(Into::into),
                life: Duration::from_secs(600),
            },
        }
    }

    /// Computed with `printf %s 1600000600:ann | openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn credentials_are_those_that_a_turn_server_computes() {
        assert_eq!(sign("north", "1600000600:ann"), VECTOR);
        let servers = timed(Some("ann")).servers(1_600_000_000);
        assert_eq!(servers[1].username.as_deref(), Some("1600000600:ann"));
        assert_eq!(servers[1].credential.as_deref(), Some(VECTOR));
        assert_eq!(servers[0].username, None, "STUN needs none");
        assert_eq!(timed(None).turn(1_600_000_000)[1].username, "1600000600");
    }

    #[test]
    fn each_server_is_a_link() {
        let links = timed(Some("ann")).links(1_600_000_000);
        assert_eq!(links[0], "<stun:stun.example:3478>; rel=\"ice-server\"");
        assert_eq!(
            links[1],
            format!(
                "<turn:turn.example:3478?transport=udp>; rel=\"ice-server\"; username=\"1600000600:ann\"; credential=\"{VECTOR}\"; credential-type=\"password\""
            )
        );
        assert_eq!(links.len(), 3);
    }

    #[test]
    fn urls_are_checked() {
        for good in [
            "turn:host",
            "turn:host:3478",
            "turns:[::1]:5349",
            "turn:1.2.3.4?transport=tcp",
        ] {
            assert!(url(good, &["turn", "turns"]), "{good}");
        }
        for bad in [
            "turn:",
            "turn://host",
            "host",
            "stun:host",
            "turn:host:0",
            "turn:host:x",
            "turn:a b",
            "turn:h?x=y",
            "turn:::1",
        ] {
            assert!(!url(bad, &["turn", "turns"]), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", timed(None)).contains("north"));
    }

    const VECTOR: &str = "6RbM8RZ+qaOOBKdL9DjeHgaDBo0=";
}
