//! What a dry run says is what the debit then does.

mod story;

use proptest::collection::vec;
use proptest::prelude::*;
use purser_ledger::apply::explain;
use purser_ledger::command::{ChargeScope, ChargeType, Debit, Operation, Payer, TrancheSpec};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Effect, Reply, Verdict};
use story::{ANN, CREDITS, Ledger, credit, grant, until};

/// A step of a session on the wallets `main` and `other`.
#[derive(Clone, Debug)]
enum Step {
    Grant { wallet: usize, amount: u8, scope: u8, lives: Option<u8> },
    Debit { payer: usize, amount: u8, charge: u8, partial: bool },
    Wait(u8),
}

const WALLETS: [&str; 2] = ["main", "other"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_usize, 1..20_u8, 0..3_u8, proptest::option::of(1..30_u8))
            .prop_map(|(wallet, amount, scope, lives)| Step::Grant { wallet, amount, scope, lives }),
        (0..3_usize, 1..40_u8, 0..3_u8, any::<bool>())
            .prop_map(|(payer, amount, charge, partial)| Step::Debit { payer, amount, charge, partial }),
        (0..10_u8).prop_map(Step::Wait),
    ]
}

fn debit_of(payer: usize, amount: &str, charge: u8, partial: bool) -> Debit<'_> {
    let payer = match WALLETS.get(payer) {
        Some(wallet) => Payer::Wallet(wallet),
        None => Payer::CustomerIn(CREDITS),
    };
    let charge_type = [None, Some(ChargeType::Usage), Some(ChargeType::Fixed)][usize::from(charge)];
    Debit { charge_type, allow_partial: partial, ..story::debit_of(payer, amount) }
}

/// An effect but for the ids of movements, which a dry run has not.
fn told(verdict: &Verdict) -> String {
    let Verdict::Applied(applied) = verdict else { return format!("{verdict:?}") };
    let Effect::Posted { movements, balances, remaining, .. } = &applied.effect else {
        return format!("{verdict:?}");
    };
    let movements: Vec<_> =
        movements.iter().map(|own| (own.kind, own.status, own.balance, own.amount, &own.draws)).collect();
    format!("{movements:?} {balances:?} {remaining:?}")
}

proptest! {
    /// Covers: Explain
    #[test]
    fn a_dry_run_says_what_the_debit_does_and_changes_nothing(steps in vec(step(), 1..40)) {
        let mut ledger = Ledger::with_wallets(&WALLETS);
        for step in steps {
            match step {
                Step::Wait(span) => ledger.now += u64::from(span),
                Step::Grant { wallet, amount, scope, lives } => {
                    let amount = amount.to_string();
                    let scope = [ChargeScope::Any, ChargeScope::Usage, ChargeScope::Fixed][usize::from(scope)];
                    let plain = TrancheSpec { scope, ..credit(&amount) };
                    let spec = match lives {
                        Some(span) => until(ledger.now + u64::from(span), plain),
                        None => plain,
                    };
                    ledger.applied(grant(WALLETS[wallet], &[spec]));
                }
                Step::Debit { payer, amount, charge, partial } => {
                    let amount = amount.to_string();
                    let debit = debit_of(payer, &amount, charge, partial);
                    let before: Vec<_> = rows(&ledger);
                    let dry = explain(&ledger.store, Time(ledger.now), ANN, &debit).expect("sound rows");
                    prop_assert_eq!(rows(&ledger), before);
                    let Reply::Verdict { verdict, .. } = ledger.tell(Operation::Debit(debit)) else {
                        panic!("a debit is judged")
                    };
                    prop_assert_eq!(dry.as_ref().map(told), Some(told(&verdict)));
                }
            }
        }
    }
}

fn rows(ledger: &Ledger) -> Vec<(Vec<u8>, Vec<u8>)> {
    ledger.store.rows().map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
}
