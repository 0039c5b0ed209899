//! Pools and their members.

use serde_json::json;

use super::super::discover::PoolLine;
use super::table::{date, table};
use super::{say, say_json};
use crate::admin::api;
use crate::admin::words::size;

pub(in crate::cli) fn pools(pools: &[PoolLine], as_json: bool) {
    if as_json {
        return say_json(&json!({ "pools": pools }));
    }
    if pools.is_empty() {
        return say("No pool announces itself on this network. `palm create-pool` makes one.");
    }
    let rows = pools.iter().map(|pool| {
        let count = format!("{}/{}", pool.members, pool.max_members);
        let reachable = if pool.reachable { "yes" } else { "no" };
        vec![pool.name.clone(), pool.id.clone(), pool.address.clone(), count, reachable.to_owned()]
    });
    say(&table(&["NAME", "ID", "ADDRESS", "MEMBERS", "REACHABLE"], rows));
}

pub(in crate::cli) fn invited(invited: &api::Invited, as_json: bool) {
    if as_json {
        return say_json(invited);
    }
    let address = invited.addresses.first().map(String::as_str).unwrap_or_default();
    say(&format!(
        "Good once, until {}. At the other machine:\n\n  palm join-pool --pool-id {} --coordinator {address} --token {}",
        date(invited.expires_ms),
        invited.pool_id,
        invited.join_token
    ));
}

pub(in crate::cli) fn approved(approved: &api::Approved, as_json: bool) {
    if as_json {
        return say_json(approved);
    }
    if approved.approved.is_empty() {
        return say("Nobody waits for approval.");
    }
    for peer in &approved.approved {
        say(&format!("Approved {peer}. It is in as soon as it asks again, within seconds."));
    }
}

pub(in crate::cli) fn refused(refused: &api::Refused, as_json: bool) {
    if as_json {
        return say_json(refused);
    }
    if refused.refused.is_empty() {
        return say("Nobody waits for approval.");
    }
    for peer in &refused.refused {
        say(&format!("Refused {peer}. It is told when it asks again, within seconds."));
    }
}

pub(in crate::cli) fn evicted(name: &str, evicted: &api::Evicted, as_json: bool) {
    if as_json {
        return say_json(evicted);
    }
    say(&format!("{name} ({}) is evicted.", evicted.evicted));
    if evicted.votes_still {
        say("It votes still: the voters will go on without it as soon as they can. `palm status` tells.");
    }
}

pub(in crate::cli) fn left(left: &api::Left, as_json: bool) {
    if as_json {
        return say_json(left);
    }
    say(&format!("{} has left pool {} and stops.", left.left, left.pool_id));
}

/// The plan of a recovery, to stderr and for people only: it is shown before the question.
pub(in crate::cli) fn recovery_plan(plan: &api::RecoveryPlan) {
    let list = |members: &[crate::pool::recovery::Named]| {
        let line = |one: &crate::pool::recovery::Named| {
            format!("\n    {} {} ({})", if one.voter { "voter  " } else { "learner" }, one.name, one.peer_id)
        };
        members.iter().map(line).collect::<String>()
    };
    eprintln!("In reach, what they hold is kept:{}", list(&plan.reachable));
    eprintln!("Out of reach:{}\n", list(&plan.missing));
    for words in &plan.words {
        eprintln!("* {words}");
    }
}

pub(in crate::cli) fn recovered(recovered: &api::Recovered, as_json: bool) {
    if as_json {
        return say_json(recovered);
    }
    say(&format!(
        "The pool is founded anew, in epoch {}, from {} registers. This peer votes alone until others have caught up, which `palm status` \
         shows; evict the members that are lost for ever.",
        recovered.epoch, recovered.registers
    ));
}

pub(in crate::cli) fn members(members: &api::Members, as_json: bool) {
    if as_json {
        return say_json(members);
    }
    let rows = members.members.iter().map(|member| {
        let state = match member.state {
            api::MemberState::Live => "live",
            api::MemberState::Absent => "ABSENT",
        };
        let role = match (member.voter, member.gateway) {
            (true, false) => "voter",
            (false, false) => "learner",
            (true, true) => "voter, gateway",
            (false, true) => "learner, gateway",
        };
        vec![
            format!("{}{}", member.name, if member.this_peer { " (this peer)" } else { "" }),
            state.to_owned(),
            role.to_owned(),
            member.addresses.first().cloned().unwrap_or_default(),
            member.used_bytes.map(size).unwrap_or_default(),
            member.free_bytes.map(size).unwrap_or_default(),
            date(member.joined_ms),
            member.peer_id.clone(),
        ]
    });
    say(&table(&["NAME", "STATE", "ROLE", "ADDRESS", "USED", "FREE", "JOINED", "ID"], rows));
    if !members.waiting.is_empty() {
        let rows = members.waiting.iter().map(|waiting| {
            vec![waiting.name.clone(), waiting.address.clone(), date(waiting.requested_ms), waiting.peer_id.clone()]
        });
        say("\nWaiting for approval (`palm approve ID` or `palm refuse ID`):");
        say(&table(&["NAME", "ADDRESS", "SINCE", "ID"], rows));
    }
}
