//! Holds: placed, extended, captured, released, read.

use purser_ledger::ids::HoldId;
use purser_ledger::query::{self, HoldView};
use purser_proto::v1;
use tonic::Status;

use super::page::{Page, Paged};
use super::reads::{asset_of, known, named, walk};
use super::refusal::{self, malformed, refuse};
use super::render::{self, AboutHold};
use super::shape::Shape;
use super::{Api, Full, Written, commands, of_another_sort, pairs_of_hold};

/// Rows fetched at once on a walk.
const CHUNK: usize = 256;

/// Answers to commands about a hold.
impl Written {
    pub(super) fn held(&self, detail: v1::ReceiptDetail) -> Result<v1::HoldResponse, Status> {
        let AboutHold { hold, remaining, .. } = self.about_hold()?;
        Ok(v1::HoldResponse { receipt: self.receipt(detail), hold, remaining })
    }

    pub(super) fn extended(&self, detail: v1::ReceiptDetail) -> Result<v1::ExtendHoldResponse, Status> {
        let AboutHold { hold, remaining, .. } = self.about_hold()?;
        Ok(v1::ExtendHoldResponse { receipt: self.receipt(detail), hold, remaining })
    }

    pub(super) fn captured(&self, detail: v1::ReceiptDetail) -> Result<v1::CaptureResponse, Status> {
        let AboutHold { hold, remaining, spent: amount, released } = self.about_hold()?;
        Ok(v1::CaptureResponse { receipt: self.receipt(detail), hold, remaining, amount, released })
    }

    pub(super) fn released(&self, detail: v1::ReceiptDetail) -> Result<v1::ReleaseResponse, Status> {
        let AboutHold { hold, remaining, released, .. } = self.about_hold()?;
        Ok(v1::ReleaseResponse { receipt: self.receipt(detail), hold, remaining, released })
    }

    fn about_hold(&self) -> Result<AboutHold, Status> {
        render::about_hold(&self.applied.effect).ok_or_else(of_another_sort)
    }
}

impl Api {
    /// Sets credits aside.
    pub async fn hold(&self, request: &v1::HoldRequest) -> Result<v1::HoldResponse, Status> {
        let command = commands::hold(request, self.clock.now()).map_err(malformed)?;
        self.write(command).await?.held(Full)
    }

    /// Gives a hold more time.
    pub async fn extend_hold(
        &self,
        request: &v1::ExtendHoldRequest,
    ) -> Result<v1::ExtendHoldResponse, Status> {
        let command = commands::extend_hold(request, self.clock.now()).map_err(malformed)?;
        self.write(command).await?.extended(Full)
    }

    /// Spends what a hold has set aside.
    pub async fn capture(&self, request: &v1::CaptureRequest) -> Result<v1::CaptureResponse, Status> {
        let command = commands::capture(request, self.clock.now()).map_err(malformed)?;
        self.write(command).await?.captured(Full)
    }

    /// Gives back what a hold has set aside.
    pub async fn release(&self, request: &v1::ReleaseRequest) -> Result<v1::ReleaseResponse, Status> {
        let command = commands::release(request, self.clock.now()).map_err(malformed)?;
        self.write(command).await?.released(Full)
    }

    /// One hold.
    pub async fn get_hold(&self, request: &v1::GetHoldRequest) -> Result<v1::GetHoldResponse, Status> {
        let mut shape = Shape::new();
        let id = shape.hold("hold_id", &request.hold_id);
        let id = shape.finish(id).map_err(malformed)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let found = query::hold(&look.view, look.customer, id, look.point.now)
            .map_err(|error| refusal::unread(error, &look.pairs("")))?;
        let missing = || {
            let pairs = pairs_of_hold(look.customer, id);
            refuse("HOLD_NOT_FOUND", "the customer has no such hold", pairs)
        };
        let found = found.ok_or_else(missing)?;
        let wallet = found.hold.parts.first().ok_or_else(missing)?.wallet.clone();
        let info = look.booked(&wallet)?.info;
        Ok(v1::GetHoldResponse {
            point: Some(render::read_point(&look.point)),
            hold: Some(render::hold(&request.customer, &found, asset_of(&info))),
        })
    }

    /// The holds in a wallet.
    pub async fn list_holds(&self, request: &v1::ListHoldsRequest) -> Result<v1::ListHoldsResponse, Status> {
        named(&request.wallet)?;
        known::<v1::HoldStatus>("statuses", &request.statuses)?;
        let question = format!(
            "holds {:?}",
            (&request.namespace, &request.customer, &request.wallet, &request.statuses, &request.reference)
        );
        let page = Page::read(request.page.as_ref(), false, &question)?;
        let look = self.look(&request.namespace, &request.customer).await?;
        let wallet = look.booked(&request.wallet)?;
        let fits = |own: &HoldView| {
            let status = i32::from(render::hold_status(own.hold.state.status));
            (request.statuses.is_empty() || request.statuses.contains(&status))
                && (request.reference.is_empty() || request.reference == own.hold.reference)
        };
        let fetch = |from: Option<u64>| {
            let (after, now) = (from.map(HoldId), look.point.now);
            query::holds(&look.view, look.customer, &request.wallet, now, after, page.downwards(), CHUNK)
                .map(|rows| rows.into_iter().map(|own| (own.id.0, own)).collect())
                .map_err(|error| refusal::unread(error, &look.pairs(&request.wallet)))
        };
        let Paged { rows, info } = walk(&page, fetch, fits)?;
        let asset = asset_of(&wallet.info);
        Ok(v1::ListHoldsResponse {
            point: Some(render::read_point(&look.point)),
            holds: rows.iter().map(|own| render::hold(&request.customer, own, asset)).collect(),
            page: Some(info),
        })
    }
}
