//! The ledger against the naive model: whatever is asked of both, in any order and at any time, the
//! answers, balances, tranches and movements are the same.
//!
//! `PROPTEST_CASES=20000 cargo nextest run -p purser-ledger --test model_agrees` is the long run. A
//! failure prints the shortest history that still fails; it becomes a named test below.

mod model;

use std::collections::BTreeMap;

use model::drafts::{self, Item, Session};
use model::pair::{self, Core, Counts, entry_of};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use purser_ledger::cache::WalletCache;
use purser_ledger::time::Time;
use purser_ledger::verdict::Answer;

/// Sessions of the run whose happenings are counted, of each profile.
const COUNTED_SESSIONS: usize = 60;

/// The usual number of cases, one in so many of them; failures are kept as named tests, not files.
fn one_case_in(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: (usual.cases / share).max(1), failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(one_case_in(1))]

    #[test]
    fn the_ledger_agrees_with_the_model_on_a_few_busy_wallets(session in drafts::small()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(one_case_in(2))]

    #[test]
    fn the_ledger_agrees_with_the_model_on_crowded_wallets(session in drafts::crowded()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_same_entries_give_the_same_rows_and_digests(
        session in prop_oneof![drafts::small(), drafts::crowded()]
    ) {
        let (one, one_digests) = digests_of(&session)?;
        let (two, two_digests) = digests_of(&session)?;
        prop_assert_eq!(one_digests, two_digests);
        prop_assert_eq!(one.rows(), two.rows());
    }

    #[test]
    fn a_cache_of_any_size_changes_no_answer_and_no_row(
        session in prop_oneof![drafts::small(), drafts::crowded()],
        wallets_max in select(&[1usize, 2, 3, 100][..]),
    ) {
        let (mut plain, mut cached) = (Core::default(), Core::default());
        let mut cache = WalletCache::new(wallets_max);
        for (stamp, items) in session.write() {
            let entry = entry_of(stamp, &items);
            let expected = plain.apply(&entry).map_err(TestCaseError::fail)?;
            let given = cached.apply_cached(&mut cache, &entry).map_err(TestCaseError::fail)?;
            prop_assert_eq!(expected, given);
        }
        prop_assert_eq!(plain.rows(), cached.rows());
    }

    #[test]
    fn a_batch_and_its_commands_one_by_one_give_the_same_answers_and_rows(
        session in prop_oneof![drafts::small(), drafts::crowded()]
    ) {
        let together = session.write();
        let apart: Vec<(Time, Vec<Item>)> = together
            .iter()
            .flat_map(|(stamp, items)| items.iter().map(|item| (*stamp, vec![item.clone()])))
            .collect();
        let (one, answers) = answers_to(&together)?;
        let (other, answers_apart) = answers_to(&apart)?;
        prop_assert_eq!(answers, answers_apart);
        let differing = differing_keys(&one.rows(), &other.rows());
        prop_assert!(differing.len() <= 1, "rows other than the digest differ: {:02x?}", differing);
    }
}

fn digests_of(session: &Session) -> Result<(Core, Vec<u128>), TestCaseError> {
    let mut core = Core::default();
    let mut digests = Vec::new();
    for (stamp, items) in session.write() {
        digests.push(core.apply(&entry_of(stamp, &items)).map_err(TestCaseError::fail)?.1);
    }
    Ok((core, digests))
}

fn answers_to(batches: &[(Time, Vec<Item>)]) -> Result<(Core, Vec<Answer>), TestCaseError> {
    let mut core = Core::default();
    let mut answers = Vec::new();
    for (stamp, items) in batches {
        answers.extend(core.apply(&entry_of(*stamp, items)).map_err(TestCaseError::fail)?.0);
    }
    Ok((core, answers))
}

/// The keys under which two stores do not hold the same.
fn differing_keys(one: &BTreeMap<Vec<u8>, Vec<u8>>, other: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = one.keys().chain(other.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| one.get(key) != other.get(key));
    keys
}

#[test]
fn the_sessions_tried_contain_what_is_worth_trying() {
    let mut counts = counted(drafts::small());
    for (what, often) in counted(drafts::crowded()) {
        *counts.entry(what).or_default() += often;
    }
    let rare = [
        "backlog",
        "clock went back",
        "key too old",
        "sweep with more to do",
        "debit over more than thirty tranches",
    ];
    let often = [
        "activation",
        "debit",
        "debit over several tranches",
        "debit over more than eight tranches",
        "debit over several wallets",
        "expiry",
        "grant of immediate and scheduled tranches",
        "key reused",
        "partial debit",
        "replay, applied",
        "replay, denied",
    ];
    let reasons = pair::REASONS.map(|reason| reason.name());
    for (wanted, at_least) in [(&rare[..], 5), (&often[..], 50), (&reasons[..], 5)] {
        for what in wanted {
            let happened = counts.get(what).copied().unwrap_or(0);
            assert!(happened >= at_least, "{what} happened {happened} times only: {counts:#?}");
        }
    }
}

/// What happens in sessions drawn from a fixed seed; they are compared too.
fn counted(sessions: impl Strategy<Value = Session>) -> Counts {
    let mut runner = TestRunner::deterministic();
    let mut counts = Counts::new();
    for _ in 0..COUNTED_SESSIONS {
        let session = sessions.new_tree(&mut runner).expect("a session").current();
        let happened = pair::compare(&session).unwrap_or_else(|difference| panic!("{difference}"));
        happened.into_iter().for_each(|(what, often)| *counts.entry(what).or_default() += often);
    }
    counts
}
