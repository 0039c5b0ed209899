//! Commands about the backends of this peer.

use super::args::Backend;
use super::{CliError, failed, print, task};
use crate::admin::api::{self, Removal, Task, path};
use crate::admin::client::{Reach, ask, ask_within};

/// A question without a body.
const NOTHING: Option<&()> = None;
/// Opening a store that was in use before takes as long as reading its log.
const OPEN_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(10);

pub(super) async fn run(reach: &Reach, wish: Backend, json: bool) -> Result<(), CliError> {
    match wish {
        Backend::List => print::backends(&ask(reach, path::BACKENDS, NOTHING).await?, json),
        Backend::Add { url, max_bytes, reserve, bandwidth, domain } => {
            let sizes = [("max_bytes", max_bytes), ("reserve", reserve), ("bandwidth", bandwidth)];
            let given = sizes.into_iter().filter_map(|(name, size)| Some(format!("{name}={}", size?.0)));
            let given = given.chain(domain.map(|domain| format!("domain={domain}")));
            let wish = api::AddBackend { url: with_options(absolute(&url)?, &given.collect::<Vec<_>>()) };
            print::added_backend(&ask_within(reach, path::BACKENDS, Some(&wish), OPEN_TIMEOUT).await?, json);
        }
        Backend::Remove { backend, force, undo } => {
            let how = match (force, undo) {
                (true, _) => Removal::Forced,
                (_, true) => Removal::Undone,
                _ => Removal::Emptied,
            };
            let backend = if backend.parse::<u16>().is_ok() { backend } else { absolute(&backend)? };
            let removed = ask(reach, path::BACKEND_REMOVE, Some(&api::RemoveBackend { backend, how })).await?;
            match how {
                Removal::Emptied => task::run(reach, Task::EmptyBackends, false, json).await?,
                _ => print::removed_backend(&removed, how, json),
            }
        }
    }
    Ok(())
}

/// A directory is short for a disk there.
fn absolute(url: &str) -> Result<String, CliError> {
    if url.contains(':') {
        return Ok(url.to_owned());
    }
    let dir = std::path::absolute(url).map_err(failed(url))?;
    Ok(format!("disk://{}", dir.display()))
}

fn with_options(url: String, options: &[String]) -> String {
    match options {
        [] => url,
        options => format!("{url}{}{}", if url.contains('?') { '&' } else { '?' }, options.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_made_of_what_people_write() {
        assert_eq!(absolute("/mnt/b").unwrap(), "disk:///mnt/b");
        assert_eq!(absolute("memory:").unwrap(), "memory:");
        assert!(absolute("b").unwrap().starts_with("disk:///"));
        let options = ["max_bytes=5".to_owned(), "reserve=1".to_owned()];
        assert_eq!(with_options("disk:///a".into(), &options), "disk:///a?max_bytes=5&reserve=1");
        assert_eq!(with_options("disk:///a?cache=1".into(), &options[..1]), "disk:///a?cache=1&max_bytes=5");
        assert_eq!(with_options("disk:///a".into(), &[]), "disk:///a");
    }
}
