use clap::CommandFactory;
use palm_core::id::PoolId;

use super::*;
use crate::pool::JoinToken;
use crate::pool::join::Coordinator;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split_whitespace())
}

fn given(line: &str) -> Vec<(&'static str, String)> {
    parse(line).unwrap().given().into_iter().map(|given| (given.name, given.values.join(","))).collect()
}

/// clap finds contradictions in a grammar only when it runs; users should not be the ones to run it.
#[test]
fn the_grammar_has_no_contradiction() {
    Args::command().debug_assert();
}

/// The lines of the README and of OPERATE: each must keep meaning what it says.
#[test]
fn documented_lines_mean_what_they_say() {
    let line = "palm serve --data d --s3 127.0.0.1:0 --quic 127.0.0.1:5001 --admin 127.0.0.1:0 --peer a:1 --peer b:2";
    assert_eq!(
        given(line),
        [
            ("data", "d".to_owned()),
            ("s3.address", "127.0.0.1:0".to_owned()),
            ("quic.address", "127.0.0.1:5001".to_owned()),
            ("admin.address", "127.0.0.1:0".to_owned()),
            ("discovery.peers", "a:1,b:2".to_owned()),
        ]
    );
    assert_eq!(given("palm serve --backend disk:///a"), [("backend.url", "disk:///a".to_owned())]);
    let several = [("backend.urls", "disk:///a,disk:///b".to_owned())];
    assert_eq!(given("palm serve --backend disk:///a --backend disk:///b"), several);
    assert!(matches!(parse("palm daemon").unwrap().command, Command::Serve(_)));
    assert_eq!(
        given(
            "palm create-pool --name home --max-members 7 --port 5002 --policy 3-of-5 --open --consistency local --json"
        ),
        [
            ("pool.name", "home".to_owned()),
            ("pool.max_members", "7".to_owned()),
            ("pool.policy", "3-of-5".to_owned()),
            ("pool.open", "true".to_owned()),
            ("pool.consistency", "local".to_owned()),
        ]
    );
    assert_eq!(parse("palm create-pool --port 5002").unwrap().port(), Some(5002));
    let pool = PoolId::from_bytes([7; 16]);
    for flag in ["--coordinator", "--peer"] {
        let line = format!("palm join-pool --pool-id {pool} {flag} host:5000 --port 5003");
        let Command::JoinPool(join) = parse(&line).unwrap().command else { panic!("not a join") };
        let target = join.into_target().unwrap();
        assert_eq!((target.pool, target.coordinators), (pool, vec![Coordinator::Named("host:5000".into())]));
    }
    assert!(parse("palm key create --data d --json").unwrap().json);
    assert!(parse("palm invite --expires 1s").is_ok());
    for command in ["approve", "refuse"] {
        assert!(parse(&format!("palm {command} --all")).is_ok() && parse(&format!("palm {command} abc")).is_ok());
    }
    assert!(parse("palm evict attic --reason sold --yes").is_ok() && parse("palm leave --force").is_ok());
    assert!(parse("palm bucket quota b --bytes 5GiB --objects 7").is_ok() && parse("palm bucket quota b").is_ok());
    assert!(parse("palm bucket quota b --none --objects 7").is_err());
    assert!(parse("palm pool recover --i-accept-data-loss").is_ok());
    for line in [
        "repair --dry-run",
        "scrub --dry-run",
        "rebalance --dry-run",
        "gc --dry-run",
        "drain --undo",
        "backend list",
        "backend add /mnt/b --max-bytes 5GiB",
        "backend remove 1",
        "status --durability",
        "status --watch",
        "status --admin http://127.0.0.1:9001 --admin-token t",
        "doctor",
        "bench --endpoint http://127.0.0.1:9000 --op put",
        "completions bash",
        "man /tmp",
        "admin-token",
    ] {
        assert!(parse(&format!("palm {line} --json")).is_ok(), "{line}");
    }
}

/// Usage errors are exit code 2 by clap; a token that is wrong came from somebody else and is a failure (1).
#[test]
fn wrong_lines_are_refused() {
    for line in [
        "palm",
        "palm dance",
        "palm serve --s3 nowhere",
        "palm approve",
        "palm approve x --all",
        "palm refuse",
        "palm join-pool",
        "palm join-pool --pool-id x",
        "palm create-pool --policy 5-of-3",
        "palm create-pool --consistency eventual",
        "palm create-pool --port 1 --quic 127.0.0.1:1",
        "palm invite --expires soon",
        "palm invite --expires 0s",
        "palm config",
        "palm evict",
        "palm pool",
        "palm backend add",
        "palm backend remove 1 --force --undo",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    let Command::JoinPool(join) = parse("palm join-pool --token x").unwrap().command else { panic!("not a join") };
    assert!(matches!(join.into_target(), Err(CliError::Failed(_))));
}

/// A token says which pool it is for; a contradiction must be told here, before anything is asked.
#[test]
fn a_token_names_its_pool() {
    let (mine, other) = (PoolId::from_bytes([1; 16]), PoolId::from_bytes([2; 16]));
    let token = JoinToken::new(mine, palm_core::id::PeerId::from_bytes([3; 32]), 1).unwrap();
    let join = |pool_id| JoinPool {
        listen: Listen::default(),
        pool_id,
        coordinator: Vec::new(),
        token: Some(token.to_string()),
    };
    assert_eq!(join(None).into_target().unwrap().pool, mine);
    assert_eq!(join(Some(mine)).into_target().unwrap().pool, mine);
    assert!(join(Some(other)).into_target().is_err());
}

/// A command goes to the peer in --data unless --admin names another, and to that one only with its token: without, it would
/// be refused there anyway, in words that say less.
#[test]
fn a_command_reaches_the_peer_that_is_meant() {
    let here = || PathBuf::from("here");
    assert!(matches!(reach(None, None, here()), Ok(Reach::Socket(dir)) if dir == here()));
    let url = |url: &str| reach(Some(url.to_owned()), Some("t".to_owned()), here());
    assert!(matches!(url("http://a:9001/"), Ok(Reach::Http { host, token }) if host == "a:9001" && token == "t"));
    assert!(matches!(url("127.0.0.1:9001"), Err(CliError::Usage(_))));
    assert!(matches!(url("https://a:9001"), Err(CliError::Usage(words)) if words.contains("ssh -L")));
    let without = reach(Some("http://a:9001".to_owned()), None, here());
    assert!(matches!(without, Err(CliError::Usage(words)) if words.contains("palm admin-token")));
}
