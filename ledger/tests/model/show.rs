//! Showing commands, for the history that a failure prints.

use purser_ledger::command::{
    Change, ChargeScope, ChargeType, Expiry, Header, Operation, Payer, TrancheSpec,
};

use super::drafts::Item;

/// A command on one line.
pub fn show(item: &Item) -> String {
    let command = match item {
        Item::Sweep(limit) => return format!("sweep {limit}"),
        Item::Command(command) => command,
    };
    let Header { customer, key, valid_until, retention, .. } = command.header;
    let operation = match &command.operation {
        Operation::CreateWallet(create) => format!(
            "create {} {} draw {} {:?} {:?}",
            create.wallet, create.asset, create.draw_priority, create.scope, create.burn_policy
        ),
        Operation::FreezeWallet(freeze) => format!("freeze {} {}", freeze.wallet, freeze.frozen),
        Operation::Grant(grant) => {
            let tranches: Vec<String> = grant.tranches.iter().map(show_spec).collect();
            format!("grant {} [{}]", grant.wallet, tranches.join(" | "))
        }
        Operation::Debit(debit) => {
            let charge = show_charge(debit.payer, debit.charge_type, debit.feature);
            let partial = if debit.allow_partial { " partial" } else { "" };
            format!("debit {} {charge}{partial}", debit.amount)
        }
        Operation::Hold(hold) => {
            let charge = show_charge(hold.payer, hold.charge_type, hold.feature);
            let ttl = hold.ttl.map(|ttl| format!(" for {}", ttl.0)).unwrap_or_default();
            format!("hold {} {charge}{ttl}", hold.amount)
        }
        Operation::ExtendHold(extend) => format!("extend {} by {}", extend.hold, extend.ttl.0),
        Operation::Capture(capture) => {
            let amount = capture.amount.map_or("all".to_owned(), |amount| amount.to_string());
            let open = if capture.keep_open { " keep open" } else { "" };
            format!("capture {amount} of {}{open}", capture.hold)
        }
        Operation::Release(release) => format!("release {}", release.hold),
        Operation::UpdateWallet(update) => format!(
            "update {} of version {:?}: draw {:?} {:?}",
            update.wallet, update.version, update.draw_priority, update.scope
        ),
        Operation::CloseWallet(close) => format!("close {}", close.wallet),
        Operation::EndGrant(end) => format!("{:?} {} in {}", end.end, end.tranche, end.wallet),
        Operation::ConfirmGrant(confirm) => {
            let to = confirm.expiry.map(|expiry| format!(" to {}", expiry.at().0)).unwrap_or_default();
            let lifetime = confirm.lifetime.map(|time| format!(" (till {})", time.0)).unwrap_or_default();
            format!("confirm {} in {}{to}{lifetime}", confirm.tranche, confirm.wallet)
        }
        Operation::Refund(refund) => {
            let amount = refund.amount.map_or("all".to_owned(), |amount| amount.to_string());
            let grace = refund.grace.map(|grace| format!(" grace {}", grace.0)).unwrap_or_default();
            format!("refund {amount} of {}{grace}", refund.movement)
        }
        Operation::Adjust(adjust) => match adjust.change {
            Change::Up { amount, expiry } => {
                format!("adjust {} +{amount} to {}", adjust.wallet, expiry.at().0)
            }
            Change::Down { amount, tranche } => {
                let of = tranche.map(|tranche| format!(" of {tranche}")).unwrap_or_default();
                format!("adjust {} -{amount}{of}", adjust.wallet)
            }
        },
    };
    format!("{}/{} {key} <{} +{}: {operation}", customer.namespace, customer.id, valid_until.0, retention.0)
}

fn show_charge(payer: Payer<'_>, charge_type: Option<ChargeType>, feature: Option<&str>) -> String {
    let mut text = match payer {
        Payer::Wallet(wallet) => format!("of {wallet}"),
        Payer::CustomerIn(asset) => format!("in {asset}"),
    };
    if let Some(charge_type) = charge_type {
        text += &format!(" {charge_type:?}");
    }
    if let Some(feature) = feature {
        text += &format!(" {feature}");
    }
    text
}

fn show_spec(spec: &TrancheSpec<'_>) -> String {
    let mut text = format!("{} {:?}", spec.amount, spec.kind);
    if spec.pending {
        text += " pending";
    }
    if spec.priority != 100 {
        text += &format!(" p{}", spec.priority);
    }
    if let Some(time) = spec.effective_at {
        text += &format!(" from {}", time.0);
    }
    if spec.expiry != Expiry::Never {
        text += &format!(" to {}", spec.expiry.at().0);
    }
    if spec.scope != ChargeScope::Any {
        text += &format!(" {:?}", spec.scope);
    }
    if !spec.features.is_empty() {
        text += &format!(" {}", spec.features.join("+"));
    }
    if !spec.external_reference.is_empty() {
        text += &format!(" ref {}", spec.external_reference);
    }
    text
}
