//! Reads: wallets, balances, tranches, movements, dry runs, audits. Each is linearizable and judged
//! at one read point.

use std::sync::Arc;

use purser_ledger::amount::{Amount, Asset};
use purser_ledger::audit;
use purser_ledger::ids::{Customer, ID_BYTES_MAX, RecordId, TrancheId};
use purser_ledger::query::{
    self, BookedWallet, LedgerEntry, OpenView, PAGE_ROWS_MAX, ReadError, TrancheView, WalletView,
};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Balance, Verdict, WalletInfo};
use purser_proto::v1;
use tonic::Status;

use super::page::{Page, Paged};
use super::refusal::{self, Pairs, malformed, malformed_field, refuse};
use super::shape::{Shape, timestamp};
use super::{Api, commands, pairs_of_debit, pairs_of_wallet, render};
use crate::shard::ReadPoint;
use crate::storage::ShardView;

/// Rows fetched at once on a walk.
const CHUNK: usize = 256;
/// Rows that one call looks at, however few of them fit its filters.
const LOOKED_AT_MAX: usize = 10_000;
/// The furthest that `expiring_within_days` looks ahead.
const EXPIRING_DAYS_MAX: u32 = 3_660;
/// Most findings of one audit.
const FINDINGS_MAX: usize = 1_000;
/// Audits at once on one node.
pub(super) const AUDITS_MAX: usize = 4;

/// One consistent look at a customer.
pub(super) struct Look<'a> {
    pub customer: Customer<'a>,
    pub point: ReadPoint,
    pub view: ShardView,
}

impl Look<'_> {
    pub(super) fn pairs(&self, wallet: &str) -> Pairs {
        match wallet {
            "" => Pairs::from([("customer".to_owned(), self.customer.id.to_owned())]),
            wallet => pairs_of_wallet(self.customer, wallet),
        }
    }

    /// A wallet's attributes and how many movements it has: whatever is due in it.
    pub(super) fn booked(&self, wallet: &str) -> Result<BookedWallet, Status> {
        query::booked_wallet(&self.view, self.customer, wallet)
            .map_err(|error| refusal::unread(error, &self.pairs(wallet)))
    }

    fn figures(&self, wallet: &str) -> Result<WalletView, Status> {
        query::wallet(&self.view, self.customer, wallet, self.point.now)
            .map_err(|error| refusal::unread(error, &self.pairs(wallet)))
    }

    fn wallets(&self) -> Result<Vec<WalletInfo>, Status> {
        query::wallets(&self.view, self.customer, None, usize::MAX)
            .map_err(|error| refusal::unread(error, &self.pairs("")))
    }

    /// The wallet named, or all of the customer's.
    fn named_or_all(&self, wallet: &str) -> Result<Vec<WalletInfo>, Status> {
        if wallet.is_empty() { self.wallets() } else { Ok(vec![self.booked(wallet)?.info]) }
    }
}

impl Api {
    pub(super) async fn look<'a>(&self, namespace: &'a str, customer: &'a str) -> Result<Look<'a>, Status> {
        let mut shape = Shape::new();
        let customer = shape.customer(namespace, customer);
        self.look_at(shape.finish(customer).map_err(malformed)?).await
    }

    async fn look_at<'a>(&self, customer: Customer<'a>) -> Result<Look<'a>, Status> {
        let (point, view) = self.read(customer).await?;
        Ok(Look { customer, point, view })
    }

    /// One wallet.
    pub async fn get_wallet(&self, request: &v1::GetWalletRequest) -> Result<v1::GetWalletResponse, Status> {
        named(&request.wallet)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let wallet = look.booked(&request.wallet)?;
        Ok(v1::GetWalletResponse {
            point: Some(render::read_point(&look.point)),
            wallet: Some(render::wallet(&request.customer, &wallet.info)),
        })
    }

    /// The wallets of a customer, in order of creation.
    pub async fn list_wallets(
        &self,
        request: &v1::ListWalletsRequest,
    ) -> Result<v1::ListWalletsResponse, Status> {
        known::<v1::WalletStatus>("statuses", &request.statuses)?;
        let question = format!(
            "wallets {:?}",
            (&request.namespace, &request.customer, &request.asset, &request.statuses)
        );
        let page = Page::read(request.page.as_ref(), false, &question)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let fits = |info: &WalletInfo| {
            let wallet = render::wallet("", info);
            (request.asset.is_none() || request.asset == wallet.asset)
                && (request.statuses.is_empty() || request.statuses.contains(&wallet.status))
        };
        // Numbered by creation: wallets are never deleted.
        let mut all: Vec<(u64, WalletInfo)> = (1..).zip(look.wallets()?).collect();
        if page.downwards() {
            all.reverse();
        }
        let bounded = |number: u64| match page.bound {
            None => true,
            Some(bound) if page.downwards() => number < bound,
            Some(bound) => number > bound,
        };
        let found = all.into_iter().filter(|(number, info)| bounded(*number) && fits(info));
        let Paged { rows, info } = page.finish(found.take(page.rows + 1).collect(), None);
        Ok(v1::ListWalletsResponse {
            point: Some(render::read_point(&look.point)),
            wallets: rows.iter().map(|wallet| render::wallet(&request.customer, wallet)).collect(),
            page: Some(info),
        })
    }

    /// What a debit would do.
    pub async fn explain(&self, request: &v1::ExplainRequest) -> Result<v1::ExplainResponse, Status> {
        let (customer, debit) = commands::explain(request).map_err(malformed)?;
        let look = self.look_at(customer).await?;
        let verdict = purser_ledger::apply::explain(&look.view, look.point.now, customer, &debit);
        let verdict = verdict.map_err(|damage| refusal::unread(ReadError::Damage(damage), &Pairs::new()))?;
        match verdict {
            None => Err(refusal::unavailable("what is due in this wallet is being booked; ask again")),
            Some(Verdict::Applied(applied)) => Ok(render::explained(&applied, &look.point)),
            Some(Verdict::Denied(denial)) => Ok(v1::ExplainResponse {
                point: Some(render::read_point(&look.point)),
                refusal: Some(refusal::explain_denial(&denial, &pairs_of_debit(customer, &debit))),
                ..Default::default()
            }),
        }
    }

    /// Balances.
    pub async fn get_balance(
        &self,
        request: &v1::GetBalanceRequest,
    ) -> Result<v1::GetBalanceResponse, Status> {
        let mut shape = Shape::new();
        shape.optional("wallet", &request.wallet, ID_BYTES_MAX);
        if request.asset.is_some() {
            shape.asset("asset", request.asset.as_ref());
            if !request.wallet.is_empty() {
                shape.invalid("asset", "name a wallet or an asset, not both");
            }
        }
        if request.expiring_within_days > EXPIRING_DAYS_MAX {
            shape.invalid("expiring_within_days", format!("at most {EXPIRING_DAYS_MAX}"));
        }
        shape.finish(()).map_err(malformed)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let mut wallets = Vec::new();
        let mut sums: Vec<(WalletInfo, Balance)> = Vec::new();
        for info in look.named_or_all(&request.wallet)? {
            let asset = Some(render::asset(&info.asset_code, info.asset_scale));
            if request.asset.is_some() && request.asset != asset {
                continue;
            }
            let view = look.figures(&info.wallet)?;
            add_up(&mut sums, &view)?;
            wallets.push(wallet_balance(&look, &view, request)?);
        }
        let totals = sums.iter().map(|(info, sum)| render::balance("", asset_of(info), sum)).collect();
        Ok(v1::GetBalanceResponse { point: Some(render::read_point(&look.point)), wallets, totals })
    }

    /// The tranches of a wallet.
    pub async fn list_tranches(
        &self,
        request: &v1::ListTranchesRequest,
    ) -> Result<v1::ListTranchesResponse, Status> {
        named(&request.wallet)?;
        known::<v1::TrancheStatus>("statuses", &request.statuses)?;
        known::<v1::TrancheKind>("kinds", &request.kinds)?;
        let question = format!(
            "tranches {:?}",
            (
                &request.customer,
                &request.wallet,
                &request.statuses,
                &request.kinds,
                &request.external_reference
            )
        );
        let page = Page::read(request.page.as_ref(), false, &question)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let wallet = look.booked(&request.wallet)?;
        let fits = |own: &TrancheView| {
            let status = i32::from(render::tranche_status(own.status));
            (request.statuses.is_empty() || request.statuses.contains(&status))
                && (request.kinds.is_empty() || request.kinds.contains(&render::kind(own.tranche.kind)))
                && (request.external_reference.is_empty()
                    || request.external_reference == own.tranche.external_reference)
        };
        let fetch = |from: Option<u64>| {
            let after = from.map(TrancheId);
            let now = look.point.now;
            query::tranches(&look.view, look.customer, &request.wallet, now, after, page.downwards(), CHUNK)
                .map(|rows| rows.into_iter().map(|own| (own.id.0, own)).collect())
                .map_err(|error| refusal::unread(error, &look.pairs(&request.wallet)))
        };
        let Paged { rows, info } = walk(&page, fetch, fits)?;
        let scale = wallet.info.asset_scale;
        Ok(v1::ListTranchesResponse {
            point: Some(render::read_point(&look.point)),
            tranches: rows.iter().map(|own| render::tranche(&request.wallet, scale, own)).collect(),
            page: Some(info),
        })
    }

    /// The movements of a wallet.
    pub async fn list_movements(
        &self,
        request: &v1::ListMovementsRequest,
    ) -> Result<v1::ListMovementsResponse, Status> {
        named(&request.wallet)?;
        known::<v1::MovementType>("types", &request.types)?;
        known::<v1::TrancheKind>("kinds", &request.kinds)?;
        let filter = MovementFilter::read(request)?;
        let question =
            format!("movements {:?}", (&request.namespace, &request.customer, &request.wallet, &filter));
        let page = Page::read(request.page.as_ref(), true, &question)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let wallet = look.booked(&request.wallet)?;
        let fetch = |from: Option<u64>| {
            let (first, count) = match (page.downwards(), from) {
                (false, from) => (from.map_or(1, |number| number + 1), CHUNK as u64),
                (true, from) => {
                    let until = from.map_or(wallet.movements, |number| number - 1);
                    let first = until.saturating_sub(CHUNK as u64 - 1).max(1);
                    (first, (until + 1).saturating_sub(first))
                }
            };
            let rows = query::movements(&look.view, look.customer, &request.wallet, first, count as usize);
            let mut rows: Vec<(u64, LedgerEntry)> = rows
                .map_err(|error| refusal::unread(error, &look.pairs(&request.wallet)))?
                .into_iter()
                .map(|entry| (entry.movement.number, entry))
                .collect();
            if page.downwards() {
                rows.reverse();
            }
            Ok(rows)
        };
        let Paged { rows, info } = walk(&page, fetch, |entry| filter.fits(entry))?;
        let movements =
            rows.iter().map(|entry| render::movement(&request.customer, &wallet.info, entry)).collect();
        Ok(v1::ListMovementsResponse {
            point: Some(render::read_point(&look.point)),
            movements,
            page: Some(info),
        })
    }

    /// One movement.
    pub async fn get_movement(
        &self,
        request: &v1::GetMovementRequest,
    ) -> Result<v1::GetMovementResponse, Status> {
        let id = RecordId::parse(&request.movement_id)
            .ok_or_else(|| malformed_field("movement_id", "not a movement id: mov_ and 13 letters"))?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let unread = |error| refusal::unread(error, &look.pairs(""));
        let missing = || {
            let mut pairs = look.pairs("");
            pairs.insert("movement".to_owned(), request.movement_id.clone());
            refuse("MOVEMENT_NOT_FOUND", "the customer has no such movement", pairs)
        };
        let wallet = query::wallet_of_movement(&look.view, look.customer, id).map_err(unread)?;
        let wallet = wallet.ok_or_else(missing)?;
        let entry = query::movement_by_id(&look.view, look.customer, &wallet, id).map_err(unread)?;
        let entry = entry.ok_or_else(missing)?;
        let info = look.booked(&wallet)?.info;
        Ok(v1::GetMovementResponse {
            point: Some(render::read_point(&look.point)),
            movement: Some(render::movement(&request.customer, &info, &entry)),
        })
    }

    /// Computes balances and hash chains again.
    ///
    /// It may read millions of rows: on a thread of its own, and few at once.
    pub async fn audit(&self, request: &v1::AuditRequest) -> Result<v1::AuditResponse, Status> {
        let look = self.look(&request.namespace, &request.customer).await?;
        let (point, view) = (look.point, look.view);
        let permit = Arc::clone(&self.audits).try_acquire_owned().map_err(|_| {
            refusal::unavailable(format!("{AUDITS_MAX} audits are under way on this node; try again"))
        })?;
        let request = request.clone();
        // The simulation has one thread, and runs it there.
        #[cfg_attr(madsim, allow(deprecated))]
        let audit = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut shape = Shape::new();
            let customer = shape.customer(&request.namespace, &request.customer);
            let customer = shape.finish(customer).map_err(malformed)?;
            Look { customer, point, view }.audit(&request)
        });
        audit.await.map_err(|_| refusal::unavailable("the audit was given up"))?
    }
}

impl Look<'_> {
    fn audit(&self, request: &v1::AuditRequest) -> Result<v1::AuditResponse, Status> {
        let mut response =
            v1::AuditResponse { point: Some(render::read_point(&self.point)), ..Default::default() };
        for info in self.named_or_all(&request.wallet)? {
            let report = audit::audit(&self.view, self.customer, &info.wallet)
                .map_err(|error| refusal::unread(error, &self.pairs(&info.wallet)))?;
            let room = FINDINGS_MAX - response.findings.len();
            let found = report.findings.into_iter().take(room);
            response
                .findings
                .extend(found.map(|message| v1::AuditFinding { wallet: info.wallet.clone(), message }));
            response.wallets.push(v1::AuditedWallet {
                wallet: info.wallet.clone(),
                asset: Some(render::asset(&info.asset_code, info.asset_scale)),
                settled: report.settled.to_text(info.asset_scale),
                movements: report.movements,
                chain_hash: render::hex(&report.chain_head),
                tranches: report.tranches,
            });
        }
        Ok(response)
    }
}

pub(super) fn named(wallet: &str) -> Result<(), Status> {
    let mut shape = Shape::new();
    shape.required("wallet", wallet, ID_BYTES_MAX);
    shape.finish(()).map_err(malformed)
}

/// Every code of a filter must stand for something.
pub(super) fn known<E: TryFrom<i32>>(field: &str, codes: &[i32]) -> Result<(), Status> {
    let unknown = codes.iter().find(|code| **code == 0 || E::try_from(**code).is_err());
    match unknown {
        None => Ok(()),
        Some(code) => Err(malformed_field(field, &format!("{code} is not one of its values"))),
    }
}

pub(super) fn asset_of(info: &WalletInfo) -> Asset<'_> {
    Asset { code: &info.asset_code, scale: info.asset_scale }
}

/// Adds a wallet to the sum of its asset.
fn add_up(sums: &mut Vec<(WalletInfo, Balance)>, view: &WalletView) -> Result<(), Status> {
    let known = sums.iter().position(|(info, _)| asset_of(info) == asset_of(&view.info));
    let place = known.unwrap_or_else(|| {
        sums.push((view.info.clone(), Balance::default()));
        sums.len() - 1
    });
    let (_, sum) = &mut sums[place];
    let add = |to: &mut Amount, more: Amount| match to.checked_add(more) {
        Some(total) => {
            *to = total;
            Ok(())
        }
        None => {
            Err(refuse("AMOUNT_OVERFLOW", "the sum over these wallets is too large to write", Pairs::new()))
        }
    };
    add(&mut sum.available, view.balance.available)?;
    add(&mut sum.held, view.balance.held)?;
    add(&mut sum.pending, view.balance.pending)?;
    add(&mut sum.debt, view.balance.debt)
}

fn wallet_balance(
    look: &Look<'_>,
    view: &WalletView,
    request: &v1::GetBalanceRequest,
) -> Result<v1::WalletBalance, Status> {
    let info = &view.info;
    let text = |amount: Amount| amount.to_text(info.asset_scale);
    let mut balance = v1::WalletBalance {
        balance: Some(render::balance(&info.wallet, asset_of(info), &view.balance)),
        frozen: info.frozen,
        closed: info.closed,
        open_holds: view.open_holds,
        ..Default::default()
    };
    if request.by_hold {
        let (customer, now) = (look.customer, look.point.now);
        let open = query::open_holds(&look.view, customer, &info.wallet, now, PAGE_ROWS_MAX + 1);
        let open = open.map_err(|error| refusal::unread(error, &look.pairs(&info.wallet)))?;
        balance.holds_truncated = open.len() > PAGE_ROWS_MAX;
        let listed = open.iter().take(PAGE_ROWS_MAX);
        balance.holds = listed.map(|own| render::hold(customer.id, own, asset_of(info))).collect();
    }
    let days = u64::from(request.expiring_within_days);
    if days == 0 && !request.by_kind && !request.by_tranche {
        return Ok(balance);
    }
    let unread = |error| refusal::unread(error, &look.pairs(&info.wallet));
    let open =
        query::open_tranches(&look.view, look.customer, &info.wallet, look.point.now).map_err(unread)?;
    if days > 0 {
        let before = look.point.now.saturating_add(Span::from_secs(days * 86_400));
        let expiring = open.iter().filter(|own| own.expires_at < before).map(|own| own.available.0).sum();
        balance.expiring = text(Amount(expiring));
        balance.expiring_before = Some(timestamp(before.min(Time::LATEST)));
    }
    if request.by_kind {
        balance.kinds = by_kind(&open, info.asset_scale);
    }
    if request.by_tranche {
        balance.tranches_truncated = open.len() > PAGE_ROWS_MAX;
        for own in open.iter().take(PAGE_ROWS_MAX) {
            let found = query::tranche(&look.view, look.customer, &info.wallet, look.point.now, own.id);
            if let Some(found) = found.map_err(unread)? {
                balance.tranches.push(render::tranche(&info.wallet, info.asset_scale, &found));
            }
        }
    }
    Ok(balance)
}

fn by_kind(open: &[OpenView], scale: u8) -> Vec<v1::KindBalance> {
    let kinds = purser_ledger::command::TrancheKind::ALL.iter();
    kinds
        .filter(|kind| open.iter().any(|own| own.kind == **kind))
        .map(|kind| {
            let own = || open.iter().filter(|own| own.kind == *kind);
            v1::KindBalance {
                kind: render::kind(*kind),
                available: Amount(own().map(|own| own.available.0).sum()).to_text(scale),
                held: Amount(own().map(|own| own.held.0).sum()).to_text(scale),
                pending: Amount(own().map(|own| own.pending.0).sum()).to_text(scale),
            }
        })
        .collect()
}

/// Walks a list in chunks until a page is full, the list ends, or enough was looked at.
pub(super) fn walk<T>(
    page: &Page,
    fetch: impl Fn(Option<u64>) -> Result<Vec<(u64, T)>, Status>,
    fits: impl Fn(&T) -> bool,
) -> Result<Paged<T>, Status> {
    let mut found = Vec::new();
    let mut bound = page.bound;
    let mut looked_at = 0;
    loop {
        let rows = fetch(bound)?;
        let Some((last, _)) = rows.last() else { return Ok(page.finish(found, None)) };
        bound = Some(*last);
        looked_at += rows.len();
        found.extend(rows.into_iter().filter(|(_, row)| fits(row)));
        if found.len() > page.rows {
            return Ok(page.finish(found, None));
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok(page.finish(found, bound));
        }
    }
}

/// Which movements are asked for.
#[derive(Debug)]
struct MovementFilter {
    types: Vec<i32>,
    kinds: Vec<i32>,
    from: Option<Time>,
    until: Option<Time>,
    reference: String,
    operation: Option<purser_ledger::ids::OperationId>,
}

impl MovementFilter {
    fn read(request: &v1::ListMovementsRequest) -> Result<MovementFilter, Status> {
        let mut shape = Shape::new();
        let from = request.booked_from.as_ref().map(|stamp| shape.time("booked_from", stamp));
        let until = request.booked_until.as_ref().map(|stamp| shape.time("booked_until", stamp));
        let operation = match request.operation_id.as_str() {
            "" => None,
            text => {
                let id = purser_ledger::ids::OperationId::parse(text);
                if id.is_none() {
                    shape.invalid("operation_id", "not an operation id: op_ and 13 letters");
                }
                id
            }
        };
        shape
            .finish(MovementFilter {
                types: request.types.clone(),
                kinds: request.kinds.clone(),
                from,
                until,
                reference: request.reference.clone(),
                operation,
            })
            .map_err(malformed)
    }

    fn fits(&self, entry: &LedgerEntry) -> bool {
        let own = &entry.movement;
        (self.types.is_empty() || self.types.contains(&render::movement_type(own.kind).into()))
            && (self.kinds.is_empty()
                || own.draws.iter().any(|draw| self.kinds.contains(&render::kind(draw.kind))))
            && self.from.is_none_or(|from| own.booked_at >= from)
            && self.until.is_none_or(|until| own.booked_at < until)
            && (self.reference.is_empty() || self.reference == own.reference)
            && self.operation.is_none_or(|operation| operation == own.operation)
    }
}
