//! Backends of a peer.

use super::table::table;
use super::{say, say_json};
use crate::admin::api;
use crate::admin::words::size;

pub(in crate::cli) fn backends(backends: &api::Backends, as_json: bool) {
    if as_json {
        return say_json(backends);
    }
    let rows = backends.backends.iter().map(|one| {
        let state = match (&one.ill, one.leaving) {
            (Some(ill), _) => ill.clone(),
            (None, true) => "being removed".to_owned(),
            (None, false) => one.state.clone(),
        };
        vec![
            one.number.to_string(),
            one.url.clone(),
            one.domain.clone().unwrap_or_default(),
            one.fragments.map(|fragments| fragments.to_string()).unwrap_or_default(),
            one.bytes.map(size).unwrap_or_default(),
            one.free_bytes.map(size).unwrap_or_default(),
            one.stuck.as_ref().map_or(state.clone(), |stuck| format!("{state}; {stuck}")),
        ]
    });
    say(&table(&["NUMBER", "URL", "DOMAIN", "FRAGMENTS", "USED", "FREE", "STATE"], rows));
}

pub(in crate::cli) fn added_backend(added: &api::Backend, as_json: bool) {
    if as_json {
        return say_json(added);
    }
    say(&format!("Backend {} ({}) takes fragments, now and after restarts.", added.number, added.url));
}

pub(in crate::cli) fn removed_backend(removed: &api::Backend, how: api::Removal, as_json: bool) {
    if as_json {
        return say_json(removed);
    }
    let (number, url) = (removed.number, &removed.url);
    say(&match how {
        api::Removal::Undone => format!("Backend {number} ({url}) takes fragments again."),
        _ => format!(
            "Backend {number} ({url}) is removed with what it has; repair makes that anew where enough is left."
        ),
    });
}
