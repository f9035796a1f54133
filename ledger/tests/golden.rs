//! Golden bytes: the formats of keys, rows and commands, field by field, worked out by hand from
//! their descriptions. A test that fails here means that data on disk would no longer be read: a new
//! layout takes a new version byte, and the old one stays readable.

use std::sync::Arc;

use purser_ledger::amount::{Amount, Asset, Decimal};
use purser_ledger::codec::Damage;
use purser_ledger::command::{
    Adjust, Batch, BatchEncoder, BurnPolicy, Capture, Change, ChargeScope, ChargeType, CloseWallet, Command,
    ConfirmGrant, Cost, CreateWallet, Debit, EndGrant, Expiry, ExtendHold, Grant, GrantEnd, Header, Hold,
    Item, Operation, Payer, Refund, Release, TrancheKind, TrancheSpec, UpdateWallet, encode_body,
};
use purser_ledger::ids::{Customer, HoldId, OperationId, RecordId, TrancheId, WalletNo};
use purser_ledger::rows::customer::{CustomerRow, WalletEntry};
use purser_ledger::rows::hold::{HoldPart, HoldState, HoldStatus, Pin, StoredHold};
use purser_ledger::rows::journal::{
    HoldRecord, Movement, MovementKind, MovementStatus, NewMovement, OfHold, Place, Placed, Placement,
    Record, WalletRecord, encode_movement,
};
use purser_ledger::rows::keys::{self, DueKey, DueRank};
use purser_ledger::rows::memo::{HoldMemo, Memo, Outcome};
use purser_ledger::rows::meta::Meta;
use purser_ledger::rows::open::{Charge, Class, OpenTranche};
use purser_ledger::rows::open_holds::OpenHolds;
use purser_ledger::rows::overflow::{Classes, Overflow, OwnClass};
use purser_ledger::rows::tranche::{TrancheLife, TrancheRow};
use purser_ledger::rows::wallet::{DueItem, Lapse, Wallet};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Balance, Denial, Draw, Reason, Shortage, WalletInfo};

/// Pieces of hexadecimal or quoted text, each with the field that it stands for.
type Pieces<'a> = &'a [(&'a str, &'a str)];

/// Bytes from pieces of hexadecimal and of quoted text, each with the field that it stands for.
fn bytes(pieces: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (piece, _field) in pieces {
        match piece.strip_prefix('\'') {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None => {
                let digits: Vec<u32> = piece.chars().filter_map(|letter| letter.to_digit(16)).collect();
                out.extend(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8));
            }
        }
    }
    out
}

const ACME: Customer<'static> = Customer { namespace: "default", id: "acme" };

fn header() -> Header<'static> {
    Header { customer: ACME, key: "k1", valid_until: Time(300), retention: Span(5), actor: "" }
}

#[test]
fn keys_keep_their_bytes() {
    let name = ("0007 64656661756c74 0004 61636d65", "namespace and customer, each behind its length");
    assert_eq!(keys::customer(ACME), bytes(&[("'C", "table"), name]));
    assert_eq!(
        keys::wallet(ACME, "main"),
        bytes(&[("'W", "table"), name, ("0004", "length"), ("'main", "wallet")])
    );
    let no = WalletNo(0x0102);
    let tranche = TrancheId(0x0304);
    let number = ("0000000000000102", "wallet no");
    let id = ("0000000000000304", "tranche");
    assert_eq!(keys::tranche(no, tranche), bytes(&[("'R", "table"), number, id]));
    let due = DueKey { at: Time(9), rank: DueRank::Expiry, tranche };
    let at = ("0000000000000009", "due");
    assert_eq!(keys::due(no, due), bytes(&[("'X", "table"), number, at, ("01", "expiry"), id]));
    assert_eq!(keys::due_wallet(Time(9), no), bytes(&[("'D", "table"), at, number]));
    assert_eq!(keys::hold(no, HoldId(0x0304)), bytes(&[("'H", "table"), number, id]));
    assert_eq!(keys::hold_due(no, Time(9), HoldId(0x0304)), bytes(&[("'Y", "table"), number, at, id]));
    assert_eq!(keys::external_reference(no, "inv"), bytes(&[("'E", "table"), number, ("'inv", "reference")]));
    assert_eq!(keys::record(RecordId(0x0304)), bytes(&[("'J", "table"), id]));
    assert_eq!(keys::run(no, 9), bytes(&[("'S", "table"), number, at]));
    let open = open_tranche();
    let class = Class { scope: ChargeScope::Usage, feature: Some("chat") };
    let expected = bytes(&[
        ("'T", "table"),
        number,
        ("01", "usage"),
        ("01", "a feature"),
        ("0004", "its length"),
        ("'chat", "the feature"),
        ("0064", "priority 100"),
        ("0000000000000100", "expires at 256"),
        ("02", "promotional"),
        ("0000000000000080", "effective at 128"),
        id,
    ]);
    assert_eq!(keys::open(no, class, &open), expected);
    // SHA-256 of 0007 "default" 0004 "acme" "k1", its first 16 bytes (computed with sha256sum).
    let memo = bytes(&[("'I", "table"), (MEMO_HASH, "hash of customer and key")]);
    assert_eq!(keys::memo(ACME, "k1"), memo);
}

const MEMO_HASH: &str = "a68725bdf40e36c22b98530ce5051c91";

fn open_tranche() -> OpenTranche {
    OpenTranche {
        id: TrancheId(0x0304),
        available: Amount(300),
        priority: 100,
        kind: TrancheKind::Promotional,
        scope: ChargeScope::Usage,
        effective_at: Time(128),
        expires_at: Time(256),
        features: Some(Arc::from(["chat".to_owned()])),
    }
}

const OPEN_TRANCHE: &[(&str, &str)] = &[
    ("84 06", "tranche 0x304"),
    ("ac 02", "available 300"),
    ("64", "priority 100"),
    ("2a", "promotional 2, usage 1 << 3, limited to features 1 << 5"),
    ("80 01", "effective at 128"),
    ("81 02", "expires at 256, plus one"),
    ("01 04", "one feature of 4 bytes"),
    ("'chat", "the feature"),
];

#[test]
fn the_row_of_a_wallet_keeps_its_bytes() {
    let mut holds = OpenHolds::default();
    for span in [1, 3, 3] {
        holds.add(Time(span << 28)).expect("a count");
    }
    assert!(holds.pin(TrancheId(0x0304), Amount(5)));
    assert!(holds.state(Time(9), HoldId(0x0306)) && holds.state(Time(8), HoldId(0x0307)));
    let class = |scope, feature: Option<&str>, tranches| OwnClass {
        scope,
        feature: feature.map(str::to_owned),
        tranches,
    };
    let classes = Classes::Among(vec![
        class(ChargeScope::Any, None, 0x0102),
        class(ChargeScope::Usage, Some("chat"), 3),
    ]);
    let wallet = Wallet {
        no: WalletNo(0x0102),
        asset_code: "credits".into(),
        asset_scale: 2,
        draw_priority: 200,
        scope: ChargeScope::Usage,
        burn_policy: BurnPolicy::SpecificFirst,
        frozen: true,
        closed: true,
        quarantined: false,
        version: 3,
        created_at: Time(7),
        available: Amount(600),
        pending: Amount(5),
        next_due_at: Time(256),
        due_rows: 1,
        movements: 2,
        last_movement: RecordId(0x0304),
        chain_head: [0xab; 32],
        window: vec![open_tranche()],
        overflow: Some(Overflow { tranches: 1, available: Amount(300), classes, floor: open_tranche() }),
        lapse: Some(Lapse {
            through: DueKey { at: Time(9), rank: DueRank::Expiry, tranche: TrancheId(0x0304) },
            amount: Amount(1),
        }),
        booked_to: Some(DueItem::TimeOut(Time(8), HoldId(0x0305))),
        held: Amount(7),
        holds,
    };
    let head = "ab".repeat(32);
    let mut expected = bytes(&[
        ("03", "version"),
        ("7d", "frozen 1, overflow 4, lapse 8, holds 16, closed 32, booked to 64"),
        ("82 02", "number 0x102"),
        ("07", "length"),
        ("'credits", "asset code"),
        ("02", "asset scale"),
        ("c8 01", "draw priority 200"),
        ("11", "usage 1, specific first 1 << 4"),
        ("03", "version of the wallet"),
        ("07", "created at"),
        ("d8 04", "available 600"),
        ("05", "pending"),
        ("81 02", "next due at 256, plus one"),
        ("01", "due rows"),
        ("02", "movements"),
        ("84 06", "last movement 0x304"),
        (&head, "chain head"),
        ("01", "one tranche in the window"),
    ]);
    expected.extend(bytes(OPEN_TRANCHE));
    expected.extend(bytes(&[
        ("01", "one in rows"),
        ("ac 02", "300 in them"),
        ("02", "of two classes"),
        ("00", "for anything"),
        ("82 02", "0x102 of those"),
        ("05 04", "usage 1, of a feature 1 << 2, of 4 bytes"),
        ("'chat", "the feature"),
        ("03", "three of those"),
    ]));
    expected.extend(bytes(OPEN_TRANCHE));
    expected.extend(bytes(&[
        ("09", "lapse through 9"),
        ("01", "expiry"),
        ("84 06", "tranche"),
        ("01", "amount"),
        ("08", "booked to 8"),
        ("00", "a time-out"),
        ("85 06", "hold"),
        ("07", "held"),
        ("02", "two holds"),
        ("08 00 00 00 00 00 00 00 07 03 00 00 00 00 00 00", "until 8, hold 0x307"),
        ("09 00 00 00 00 00 00 00 06 03 00 00 00 00 00 00", "until 9, hold 0x306"),
        ("01", "of one tranche it stands here"),
        ("04 03 00 00 00 00 00 00 05", "of 0x304, little-endian: 5"),
        ("02", "others time out in two spans of 2^28 microseconds"),
        ("01 01", "in the first one"),
        ("02 02", "two further on, two"),
    ]));
    assert_eq!(wallet.encode(), expected);
    assert_eq!(Wallet::decode(&expected), Ok(wallet));
}

#[test]
fn the_row_of_a_movement_keeps_its_bytes() {
    let draws = [Draw {
        tranche: TrancheId(0x0304),
        kind: TrancheKind::Purchased,
        amount: Amount(5),
        left: Amount(295),
    }];
    let balance_after = Balance { available: Amount(295), pending: Amount(1), ..Default::default() };
    let place = Place {
        id: RecordId(0x0005_0001),
        operation: OperationId(0x0004_0001),
        wallet_no: WalletNo(0x0102),
        number: 2,
        previous: RecordId(0x0002_0001),
        booked_at: Time(300),
        settled_after: Amount(295),
        balance_after,
    };
    let movement = NewMovement {
        kind: MovementKind::Consumed,
        status: MovementStatus::Posted,
        effective_at: Time(200),
        amount: Amount(-5),
        draws: &draws,
        hold: Some(OfHold { id: HoldId(0x0506), placement: None }),
        corrects: Some(RecordId(0x0304)),
        charge: Charge { charge_type: Some(ChargeType::Usage), feature: Some("chat") },
        key: "k1",
        actor: "a",
        reason_code: "r",
        reference: "q",
        metadata: &[("m", "n")],
    };
    let expected = bytes(&[
        ("02 02", "version, movement"),
        ("02", "consumed"),
        (
            "fe 03",
            "effective 2, actor 4, reason 8, reference 16, metadata 32, feature 64, hold 128, corrects 256",
        ),
        ("11", "burn order 1, usage 1 << 4"),
        ("82 02", "wallet no"),
        ("02", "number"),
        ("80 80 04", "0x10000 behind its operation"),
        ("03", "three ids behind its previous"),
        ("ac 02", "booked at 300"),
        ("c8 01", "effective at 200"),
        ("09", "amount -5, zigzag"),
        ("ce 04", "settled after 295, zigzag 590"),
        ("a7 02 00 01 00", "available 295, held, pending, debt"),
        ("01", "one draw"),
        ("84 06 06", "tranche, purchased"),
        ("05", "amount"),
        ("a7 02", "left"),
        ("02", "length"),
        ("'k1", "key"),
        ("86 0a", "hold"),
        ("84 06", "the movement corrected"),
        ("04", "length"),
        ("'chat", "feature"),
        ("01", "length"),
        ("'a", "actor"),
        ("01", "length"),
        ("'r", "reason"),
        ("01", "length"),
        ("'q", "reference"),
        ("01 01", "one pair, length"),
        ("'m", "name"),
        ("01", "length"),
        ("'n", "value"),
    ]);
    assert_eq!(encode_movement(&place, &movement), expected);
    let read = Movement {
        operation: place.operation,
        wallet_no: place.wallet_no,
        number: 2,
        previous: place.previous,
        kind: MovementKind::Consumed,
        status: MovementStatus::Posted,
        booked_at: Time(300),
        effective_at: Time(200),
        amount: Amount(-5),
        settled_after: Amount(295),
        balance_after,
        draws: draws.to_vec(),
        hold: Some(HoldId(0x0506)),
        placed: None,
        corrects: Some(RecordId(0x0304)),
        charge_type: Some(ChargeType::Usage),
        feature: "chat".to_owned(),
        key: "k1".to_owned(),
        actor: "a".to_owned(),
        reason_code: "r".to_owned(),
        reference: "q".to_owned(),
        metadata: vec![("m".to_owned(), "n".to_owned())],
    };
    assert_eq!(Record::decode(place.id, &expected), Ok(Record::Movement(read)));
}

#[test]
fn the_rows_of_customer_tranche_memo_and_shard_keep_their_bytes() {
    let customer = CustomerRow {
        quarantined: true,
        wallets: vec![WalletEntry {
            no: WalletNo(0x0102),
            wallet: "main".to_owned(),
            asset_code: "c".to_owned(),
            asset_scale: 2,
            draw_priority: 200,
            scope: ChargeScope::Fixed,
        }],
    };
    let expected = bytes(&[
        ("01 01 01", "version, quarantined, one wallet"),
        ("82 02 04", "number, length"),
        ("'main", "wallet"),
        ("01", "length"),
        ("'c", "asset code"),
        ("02", "scale"),
        ("c8 01", "draw priority"),
        ("02", "fixed"),
    ]);
    assert_eq!(customer.encode(), expected);
    assert_eq!(CustomerRow::decode(&expected), Ok(customer));

    let tranche = TrancheRow {
        life: TrancheLife::Expired,
        amount: Amount(400),
        held: Amount(7),
        expired: Amount(300),
        voided: Amount(9),
        kind: TrancheKind::Plan,
        priority: 100,
        scope: ChargeScope::Any,
        effective_at: Time(1),
        expires_at: Time::NEVER,
        lifetime: Some(("P1D".to_owned(), "UTC".to_owned())),
        first_end: Some(Time(600)),
        created_at: Time(2),
        features: None,
        label: "l".to_owned(),
        reason_code: String::new(),
        external_reference: "e".to_owned(),
        cost: Some(("USD".to_owned(), Decimal::parse("4.9").unwrap())),
        metadata: vec![],
        granted_by: RecordId(0x0304),
    };
    let expected = bytes(&[
        ("01", "version"),
        ("fb 07 ac 02 09", "expired 3, held 8, lapsed 16, voided 32, a lifetime 64, restored 128; 7, 300, 9"),
        ("90 03", "amount 400"),
        ("01 64 00", "plan, priority, any"),
        ("01", "effective at"),
        ("00", "never expires"),
        ("03", "length"),
        ("'P1D", "the lifetime's span"),
        ("03", "length"),
        ("'UTC", "its zone"),
        ("d8 04", "its first end, 600"),
        ("02", "created at"),
        ("00", "no features"),
        ("01", "length"),
        ("'l", "label"),
        ("00", "no reason"),
        ("01", "length"),
        ("'e", "external reference"),
        ("01 03", "a cost; length"),
        ("'USD", "currency"),
        ("01 32", "one decimal place, 49 units plus one"),
        ("00", "no metadata"),
        ("84 06", "granted by"),
    ]);
    assert_eq!(tranche.encode(), expected);
    assert_eq!(TrancheRow::decode(&expected), Ok(tranche));

    let fingerprint = [0xcd; 16];
    let print = "cd".repeat(16);
    let applied = Memo {
        expires_at: Time(0x0102),
        fingerprint,
        outcome: Outcome::Applied {
            operation: OperationId(0x0304),
            records: 1,
            remaining: Some(Amount(5)),
            hold: None,
            bystanders: vec![],
        },
    };
    let expected = bytes(&[
        ("01", "version"),
        ("0201000000000000", "expires at, little-endian"),
        (&print, "fingerprint"),
        ("02", "an applied debit"),
        ("84 06", "operation"),
        ("01", "one record"),
        ("0a", "remaining 5, zigzag"),
        ("00", "no bystanders"),
    ]);
    assert_eq!(applied.encode(), expected);
    assert_eq!(Memo::decode(&expected), Ok(applied));
    let shortage = Shortage { available: Amount(5), required: Amount(6), scale: 2 };
    let denied = Memo {
        expires_at: Time(0x0102),
        fingerprint,
        outcome: Outcome::Denied(Denial { reason: Reason::InsufficientCredits, shortage: Some(shortage) }),
    };
    let expected = bytes(&[
        ("01", "version"),
        ("0201000000000000", "expires at"),
        (&print, "fingerprint"),
        ("03 0a", "denied, insufficient credits"),
        ("01 0a 0c 02", "a shortage: available 5, required 6, scale"),
    ]);
    assert_eq!(denied.encode(), expected);
    assert_eq!(Memo::decode(&expected), Ok(denied));

    let meta = Meta {
        shard_tag: 0x0102,
        allocated: 300,
        last_time: Time(128),
        swept_until: Time(129),
        swept_wallet: WalletNo(7),
        digest: 1,
    };
    let expected = bytes(&[
        ("03", "version"),
        ("0201", "shard tag, little-endian"),
        ("ac 02", "allocated"),
        ("80 01", "last time"),
        ("81 01", "swept until"),
        ("07", "swept wallet"),
        ("01000000000000000000000000000000", "digest"),
    ]);
    assert_eq!(meta.encode(), expected);
    assert_eq!(Meta::decode(&expected), Ok(meta));

    let record = WalletRecord {
        wallet_no: WalletNo(0x0102),
        booked_at: Time(128),
        info: WalletInfo {
            wallet: "main".to_owned(),
            asset_code: "c".to_owned(),
            asset_scale: 2,
            draw_priority: 100,
            scope: ChargeScope::Any,
            burn_policy: BurnPolicy::Standard,
            frozen: true,
            closed: true,
            version: 2,
            created_at: Time(1),
        },
        reason_code: "r".to_owned(),
        key: "k1".to_owned(),
        actor: String::new(),
    };
    let expected = bytes(&[
        ("02 01", "version, wallet record"),
        ("82 02", "number"),
        ("80 01", "booked at"),
        ("04", "length"),
        ("'main", "wallet"),
        ("01", "length"),
        ("'c", "asset code"),
        (
            "02 64 00 00 03 02 01",
            "scale, priority, any, standard, frozen 1 and closed 2, version, created at",
        ),
        ("01", "length"),
        ("'r", "reason"),
        ("02", "length"),
        ("'k1", "key"),
        ("00", "no actor"),
    ]);
    assert_eq!(record.encode(), expected);
    assert_eq!(Record::decode(RecordId(1), &expected), Ok(Record::Wallet(record)));
}

fn hold_state() -> HoldState {
    HoldState {
        status: HoldStatus::Captured,
        created_at: Time(1),
        expires_at: Time(300),
        amount: Amount(9),
        captured: Amount(4),
        released: Amount(5),
        excess: Amount(2),
    }
}

const HOLD_STATE: &[(&str, &str)] =
    &[("02", "captured"), ("01", "created at"), ("ac 02", "expires at 300"), ("09 04 05 02", "its figures")];

/// The movement that places the first part of a hold of 309 in two wallets.
fn placing() -> (Movement, Placed) {
    let draw = |amount| Draw {
        tranche: TrancheId(0x0304),
        kind: TrancheKind::Purchased,
        amount: Amount(amount),
        left: Amount::ZERO,
    };
    let movement = Movement {
        operation: OperationId(0x0006_0001),
        wallet_no: WalletNo(0x0102),
        number: 1,
        previous: RecordId::NONE,
        kind: MovementKind::Held,
        status: MovementStatus::Posted,
        booked_at: Time(1),
        effective_at: Time(1),
        amount: Amount::ZERO,
        settled_after: Amount(309),
        balance_after: Balance { held: Amount(309), ..Default::default() },
        draws: vec![draw(300), draw(9)],
        hold: Some(HoldId(0x0005_0001)),
        placed: None,
        corrects: None,
        charge_type: None,
        feature: String::new(),
        key: "k1".to_owned(),
        actor: String::new(),
        reason_code: String::new(),
        reference: "q".to_owned(),
        metadata: vec![],
    };
    let placed = Placed {
        part: 0,
        parts: 2,
        expires_at: Time(300),
        wallet: "main".to_owned(),
        asset: Some(("c".to_owned(), 2)),
        ends: vec![Time(128), Time::NEVER],
    };
    (movement, placed)
}

#[test]
fn the_movement_that_places_a_hold_keeps_its_bytes() {
    let (movement, placed) = placing();
    let id = HoldId(0x0005_0001).placed_by(0).expect("a record");
    let place = Place {
        id,
        operation: movement.operation,
        wallet_no: movement.wallet_no,
        number: 1,
        previous: RecordId::NONE,
        booked_at: Time(1),
        settled_after: movement.settled_after,
        balance_after: movement.balance_after,
    };
    let placement = Placement {
        part: 0,
        parts: 2,
        expires_at: Time(300),
        wallet: "main",
        asset: Some(Asset { code: "c", scale: 2 }),
        ends: &placed.ends,
    };
    let new = NewMovement {
        kind: MovementKind::Held,
        status: MovementStatus::Posted,
        effective_at: Time(1),
        amount: Amount::ZERO,
        draws: &movement.draws,
        hold: Some(OfHold { id: HoldId(0x0005_0001), placement: Some(&placement) }),
        corrects: None,
        charge: Charge::default(),
        key: "k1",
        actor: "",
        reason_code: "",
        reference: "q",
        metadata: &[],
    };
    let expected = bytes(&[
        ("02 02", "version, movement"),
        ("04", "held"),
        ("90 01", "reference 16, hold 128"),
        ("01", "burn order 1, no charge type"),
        ("82 02", "wallet no"),
        ("01", "number"),
        ("00", "its operation's first"),
        ("06", "six ids behind none"),
        ("01", "booked at"),
        ("00", "amount"),
        ("ea 04", "settled after 309, zigzag 618"),
        ("00 b5 02 00 00", "available, held 309, pending, debt"),
        ("02", "two draws"),
        ("84 06 06 ac 02 00", "tranche, purchased, 300, none left"),
        ("84 06 06 09 00", "tranche, purchased, 9, none left"),
        ("02", "length"),
        ("'k1", "key"),
        ("81 80 14", "hold 0x50001"),
        ("00 02", "its first part of two"),
        ("ac 02", "expires at 300"),
        ("04", "length"),
        ("'main", "the wallet's id"),
        ("01 01", "of a customer in an asset; length"),
        ("'c", "asset code"),
        ("02", "scale"),
        ("81 01 00", "the first tranche ends at 128, plus one; the second never"),
        ("01", "length"),
        ("'q", "reference"),
    ]);
    assert_eq!(encode_movement(&place, &new), expected);
    let read = Movement { placed: Some(Box::new(placed)), ..movement };
    assert_eq!(Record::decode(id, &expected), Ok(Record::Movement(read)));
}

#[test]
fn the_rows_of_a_hold_keep_their_bytes() {
    let (movement, placed) = placing();
    let second = Placed { part: 1, wallet: "other".to_owned(), ..placed.clone() };
    let mut hold = StoredHold::placed(movement.clone(), placed);
    hold.add_part(&Movement { wallet_no: WalletNo(0x0103), ..movement }, &second);
    let as_placed = bytes(&[("02", "version"), ("00", "as it was placed")]);
    assert_eq!(StoredHold::as_placed(), as_placed);
    assert_eq!(hold.clone().after(&as_placed), Ok(hold.clone()));

    // Of 618 in two wallets 305 were captured; then the time-out was booked in the first wallet, where 4
    // were left.
    let pins = vec![
        Pin {
            tranche: TrancheId(0x0304),
            kind: TrancheKind::Purchased,
            amount: Amount(300),
            expires_at: Time(128),
        },
        Pin {
            tranche: TrancheId(0x0304),
            kind: TrancheKind::Purchased,
            amount: Amount(9),
            expires_at: Time::NEVER,
        },
    ];
    let later = StoredHold {
        state: HoldState {
            status: HoldStatus::Open,
            created_at: Time(1),
            expires_at: Time(400),
            amount: Amount(618),
            captured: Amount(305),
            released: Amount(4),
            excess: Amount(2),
        },
        parts: vec![
            HoldPart { wallet_no: WalletNo(0x0102), wallet: "main".to_owned(), closed: true, pins: vec![] },
            HoldPart { wallet_no: WalletNo(0x0103), wallet: "other".to_owned(), closed: false, pins },
        ],
        ..hold.clone()
    };
    let expected = bytes(&[
        ("02", "version"),
        ("01", "open"),
        ("90 03", "expires at 400"),
        ("b1 02 04 02", "captured 305, released 4, excess 2"),
        ("01 00", "one part is closed: the first"),
    ]);
    assert_eq!(later.encode(), expected);
    assert_eq!(hold.clone().after(&expected), Ok(later.clone()));

    let mut captured = later;
    captured.state.status = HoldStatus::Captured;
    captured.state.captured = Amount(614);
    for part in &mut captured.parts {
        part.closed = true;
        part.pins.clear();
    }
    let expected = bytes(&[
        ("02", "version"),
        ("02", "captured"),
        ("90 03", "expires at 400"),
        ("e6 04 04 02", "captured 614, released 4, excess 2"),
    ]);
    assert_eq!(captured.encode(), expected);
    assert_eq!(hold.clone().after(&expected), Ok(captured));
    // One of which more is left than its pins are.
    let unsound = bytes(&[("02", "version"), ("02 90 03", "captured, until 400"), ("04 04 00", "4 of 618")]);
    assert_eq!(hold.after(&unsound), Err(Damage("pins of a hold")));
}

#[test]
fn rows_of_an_old_version_are_refused_by_name() {
    let mut wallet = vec![1];
    wallet.resize(100, 0);
    for version in [2, 1] {
        wallet[0] = version;
        assert_eq!(Wallet::decode(&wallet), Err(Damage("wallet version")));
    }
    assert_eq!(Record::decode(RecordId(1), &wallet), Err(Damage("record version")));
    let (movement, placed) = placing();
    assert_eq!(StoredHold::placed(movement, placed).after(&wallet), Err(Damage("hold version")));
}

#[test]
fn records_and_memos_about_a_hold_keep_their_bytes() {
    let record = HoldRecord {
        hold: HoldId(0x0506),
        booked_at: Time(128),
        state: hold_state(),
        reason_code: "r".to_owned(),
        key: "k1".to_owned(),
        actor: String::new(),
    };
    let mut expected = bytes(&[("02 03", "version, hold record"), ("86 0a", "hold"), ("80 01", "booked at")]);
    expected.extend(bytes(HOLD_STATE));
    expected.extend(bytes(&[
        ("01", "length"),
        ("'r", "reason"),
        ("02", "length"),
        ("'k1", "key"),
        ("00", "no actor"),
    ]));
    assert_eq!(record.encode(), expected);
    assert_eq!(Record::decode(RecordId(1), &expected), Ok(Record::Hold(record)));

    let memo = Memo {
        expires_at: Time(0x0102),
        fingerprint: [0xcd; 16],
        outcome: Outcome::Applied {
            operation: OperationId(0x0304),
            records: 1,
            remaining: Some(Amount(5)),
            hold: Some(Box::new(HoldMemo { id: HoldId(0x0506), state: hold_state(), places: vec![1, 0] })),
            bystanders: vec![],
        },
    };
    let print = "cd".repeat(16);
    let mut expected = bytes(&[
        ("01", "version"),
        ("0201000000000000", "expires at, little-endian"),
        (&print, "fingerprint"),
        ("04", "applied, about a hold"),
        ("84 06", "operation"),
        ("01", "one record"),
        ("0a", "remaining 5, zigzag"),
        ("86 0a", "hold"),
    ]);
    expected.extend(bytes(HOLD_STATE));
    expected.extend(bytes(&[("02 01 00", "two wallets, the second one first"), ("00", "no bystanders")]));
    assert_eq!(memo.encode(), expected);
    assert_eq!(Memo::decode(&expected), Ok(memo));
}

#[test]
fn the_bodies_of_commands_about_holds_keep_their_bytes() {
    let who = [("07", "length"), ("'default", "namespace"), ("04", "length"), ("'acme", "customer")];
    let texts = [
        ("01", "length"),
        ("'r", "reason"),
        ("01", "length"),
        ("'q", "reference"),
        ("01 01", "one pair; length"),
        ("'m", "name"),
        ("01", "length"),
        ("'n", "value"),
    ];
    let (reason_code, reference, metadata) = ("r", "q", vec![("m", "n")]);
    let hold = HoldId(0x0506);
    let place = Hold {
        payer: Payer::Wallet("main"),
        amount: Decimal::parse("12.5").unwrap(),
        ttl: Some(Span(300)),
        charge_type: None,
        feature: None,
        reason_code,
        reference,
        metadata: metadata.clone(),
    };
    let capture = Capture {
        hold,
        amount: Some(Decimal::parse("3").unwrap()),
        keep_open: true,
        reason_code,
        reference,
        metadata: metadata.clone(),
    };
    let placed = [
        ("05", "hold"),
        ("00 04", "by wallet; length"),
        ("'main", "wallet"),
        ("01 7e", "one decimal place, 125 units plus one"),
        ("ac 02", "for 300 microseconds"),
        ("00 00", "no charge type, no feature"),
    ];
    let captured = [("07", "capture"), ("86 0a", "hold"), ("01 00 04", "3, plus one"), ("01", "keep open")];
    let all = Capture { amount: None, keep_open: false, ..capture.clone() };
    let extended =
        [("06", "extend"), ("86 0a", "hold"), ("ac 02", "for 300"), ("01", "length"), ("'r", "reason")];
    let bodies: [(Operation<'_>, Pieces<'_>, bool); 5] = [
        (Operation::Hold(place), &placed, true),
        (Operation::ExtendHold(ExtendHold { hold, ttl: Span(300), reason_code }), &extended, false),
        (Operation::Capture(capture), &captured, true),
        (Operation::Capture(all), &[("07 86 0a 00 00", "capture all of the hold, and close it")], true),
        (
            Operation::Release(Release { hold, reason_code, reference, metadata }),
            &[("08 86 0a", "release")],
            true,
        ),
    ];
    for (operation, own, with_texts) in bodies {
        let command = Command { header: header(), operation };
        let mut expected = bytes(&who);
        expected.extend(bytes(own));
        if with_texts {
            expected.extend(bytes(&texts));
        }
        let mut body = Vec::new();
        encode_body(&mut body, &command);
        assert_eq!(body, expected, "{:?}", command.operation);
        let mut encoder = BatchEncoder::new();
        encoder.push(&command);
        let encoded = encoder.finish(Time(1));
        let batch = Batch::decode(&encoded).expect("a batch");
        assert_eq!(batch.items, [Item::Command { command, body: &body }]);
    }
}

#[test]
fn a_batch_keeps_its_bytes() {
    let debit = Command {
        header: header(),
        operation: Operation::Debit(Debit {
            payer: Payer::CustomerIn(Asset { code: "c", scale: 2 }),
            amount: Decimal::parse("12.5").unwrap(),
            charge_type: Some(ChargeType::Fixed),
            feature: Some("chat"),
            allow_partial: true,
            reason_code: "r",
            reference: "q",
            metadata: vec![("m", "n")],
        }),
    };
    let mut encoder = BatchEncoder::new();
    encoder.push(&debit);
    encoder.push_sweep(300);
    let encoded = encoder.finish(Time(0x0102));
    let body = bytes(&[
        ("07", "length"),
        ("'default", "namespace"),
        ("04", "length"),
        ("'acme", "customer"),
        ("04", "debit"),
        ("01 01", "by customer; length"),
        ("'c", "asset code"),
        ("02", "scale"),
        ("01 7e", "one decimal place, 125 units plus one"),
        ("02", "fixed"),
        ("01 04", "a feature; length"),
        ("'chat", "feature"),
        ("01", "partial"),
        ("01", "length"),
        ("'r", "reason"),
        ("01", "length"),
        ("'q", "reference"),
        ("01 01", "one pair; length"),
        ("'m", "name"),
        ("01", "length"),
        ("'n", "value"),
    ]);
    let behind = bytes(&[
        ("02", "length"),
        ("'k1", "key"),
        ("ac 02", "valid until"),
        ("05", "retention"),
        ("00", "no actor"),
    ]);
    let mut expected =
        bytes(&[("01", "version"), ("0201000000000000", "stamp"), ("02", "two items"), ("01", "command")]);
    expected.push((1 + body.len() + behind.len()) as u8);
    expected.push(body.len() as u8);
    expected.extend(&body);
    expected.extend(behind);
    expected.extend(bytes(&[("02 02 ac 02", "sweep; length; limit 300")]));
    let (content, hash) = encoded.split_at(encoded.len() - 8);
    assert_eq!(content, expected);
    assert_eq!(hash, xxhash_rust::xxh3::xxh3_64(content).to_le_bytes());
    let batch = Batch::decode(&encoded).expect("a batch");
    assert_eq!(batch.stamp, Time(0x0102));
    assert_eq!(Batch::peek_stamp(&expected), Some(Time(0x0102)));
    assert_eq!(batch.items, [Item::Command { command: debit, body: &body }, Item::Sweep { limit: 300 }]);
}

#[test]
fn commands_about_grants_and_wallets_read_back_as_written() {
    let spec = TrancheSpec {
        amount: Decimal::parse("1").unwrap(),
        pending: true,
        kind: TrancheKind::Rollover,
        priority: 7,
        effective_at: Some(Time(5)),
        expiry: Expiry::After { span: "P1M", zone: "Europe/Berlin", resolved: Time(77) },
        scope: ChargeScope::Usage,
        features: vec!["a", "b"],
        label: "l",
        reason_code: "r",
        external_reference: "e",
        cost: Some(Cost { currency: "EUR", amount: Decimal::parse("0").unwrap() }),
        metadata: vec![("m", "n")],
    };
    let plain = TrancheSpec { expiry: Expiry::At(Time(9)), effective_at: None, cost: None, ..spec.clone() };
    let commands = [
        Command {
            header: header(),
            operation: Operation::Grant(Grant { wallet: "main", tranches: vec![spec, plain] }),
        },
        Command {
            header: header(),
            operation: Operation::CreateWallet(CreateWallet {
                wallet: "main",
                asset: Asset { code: "c", scale: 18 },
                draw_priority: 1,
                scope: ChargeScope::Fixed,
                burn_policy: BurnPolicy::SpecificFirst,
            }),
        },
    ];
    let (reason_code, reference, metadata) = ("r", "q", vec![("m", "n")]);
    let (wallet, tranche) = ("main", TrancheId(0x0304));
    let after = Expiry::After { span: "P1M", zone: "UTC", resolved: Time(78) };
    let confirm = ConfirmGrant {
        wallet,
        tranche,
        expiry: Some(after),
        lifetime: Some(Time(79)),
        reason_code,
        reference,
        metadata: metadata.clone(),
    };
    let end = EndGrant {
        end: GrantEnd::Voided,
        wallet,
        tranche,
        reason_code,
        reference,
        metadata: metadata.clone(),
    };
    let refund = Refund {
        movement: RecordId(0x0506),
        amount: Some(Decimal::parse("1.5").unwrap()),
        grace: Some(Span(9)),
        reason_code,
        reference,
        metadata: metadata.clone(),
    };
    let adjust = |change| Adjust { wallet, change, reason_code, reference, metadata: metadata.clone() };
    let amount = Decimal::parse("2").unwrap();
    let (version, draw_priority, scope) = (Some(3), Some(4), Some(ChargeScope::Usage));
    let operations = [
        Operation::ConfirmGrant(confirm.clone()),
        Operation::ConfirmGrant(ConfirmGrant { expiry: None, lifetime: None, ..confirm }),
        Operation::EndGrant(EndGrant { end: GrantEnd::Failed, ..end.clone() }),
        Operation::EndGrant(end),
        Operation::Refund(refund.clone()),
        Operation::Refund(Refund { amount: None, grace: None, ..refund }),
        Operation::Adjust(adjust(Change::Up { amount, expiry: after })),
        Operation::Adjust(adjust(Change::Down { amount, tranche: Some(tranche) })),
        Operation::Adjust(adjust(Change::Down { amount, tranche: None })),
        Operation::UpdateWallet(UpdateWallet { wallet, version, draw_priority, scope, reason_code }),
        Operation::CloseWallet(CloseWallet { wallet, reason_code }),
    ];
    let more = operations.map(|operation| Command { header: header(), operation });
    let commands: Vec<_> = commands.into_iter().chain(more).collect();
    let mut encoder = BatchEncoder::new();
    commands.iter().for_each(|command| encoder.push(command));
    let encoded = encoder.finish(Time(1));
    let batch = Batch::decode(&encoded).expect("a batch");
    for (item, wanted) in batch.items.iter().zip(&commands) {
        assert!(matches!(item, Item::Command { command, .. } if command == wanted), "{item:?}");
    }
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_batch_is_refused() {
    let mut encoder = BatchEncoder::new();
    encoder.push_sweep(300);
    let encoded = encoder.finish(Time(1));
    for length in 0..encoded.len() {
        assert!(Batch::decode(&encoded[..length]).is_err());
    }
    for place in 0..encoded.len() {
        for bit in 0..8 {
            let mut rotten = encoded.clone();
            rotten[place] ^= 1 << bit;
            assert!(Batch::decode(&rotten).is_err(), "byte {place}, bit {bit}");
        }
    }
}
