//! Flags become requests.

use clap::CommandFactory;
use clap::error::ErrorKind;
use jiff::Timestamp;
use purser_proto::v1::debit_request::Payer;
use purser_proto::v1::tranche_spec::Expiry;
use purser_proto::v1::{
    Asset, BurnPolicy, CalendarDuration, ChargeScope, ChargeType, DebitRequest, GetClockResponse,
    GrantRequest, HoldStatus, Money, MovementType, TrancheKind, TrancheStatus, WalletStatus,
};

use super::super::words::{self, Word, Words};
use super::super::write::WriteArgs;
use super::super::{ClientCommand, Failure, OutputFormat, clock, parse, times};
use super::{CommandLine, read};

fn debit(line: &str) -> DebitRequest {
    match read(line).expect("a debit").command {
        ClientCommand::Debit(args) => args.request("default".to_owned(), "k-1"),
        other => panic!("not a debit: {other:?}"),
    }
}

pub(super) fn grant(line: &str) -> GrantRequest {
    match read(line).expect("a grant").command {
        ClientCommand::Grant(args) => {
            args.grant.expect("no command beside it").request("default".to_owned(), "k-1")
        }
        other => panic!("not a grant: {other:?}"),
    }
}

pub(super) fn refused(line: &str) -> ErrorKind {
    read(line).expect_err("a command line that is wrong").kind()
}

fn text<T>(outcome: Result<T, String>) -> String {
    outcome.err().expect("an error")
}

fn credits() -> Asset {
    Asset { code: "credits".to_owned(), scale: 0 }
}

#[test]
fn the_command_line_is_well_formed() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_command_has_help_with_examples() {
    fn check(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Examples:"), "{path} --help has no examples");
        let inner = command.get_subcommands_mut();
        // `help` is clap's own.
        for inner in inner.filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            check(inner, &path);
        }
    }
    for command in CommandLine::command().get_subcommands_mut() {
        let path = command.get_name().to_owned();
        check(command, &path);
    }
}

#[test]
fn a_debit_names_a_wallet_or_an_asset_and_never_both() {
    let by_wallet = debit("purser debit --customer acme --wallet main --amount 5");
    assert_eq!(by_wallet.payer, Some(Payer::Wallet("main".to_owned())));

    let by_customer = debit("purser debit --customer acme --asset credits/0 --amount 5");
    assert_eq!(by_customer.payer, Some(Payer::Asset(credits())));

    assert_eq!(refused("purser debit --customer acme --amount 5"), ErrorKind::MissingRequiredArgument);
    assert_eq!(
        refused("purser debit --customer acme --wallet main --asset credits/0 --amount 5"),
        ErrorKind::ArgumentConflict
    );
}

#[test]
fn every_flag_of_a_debit_reaches_the_request() {
    let request = debit(
        "purser debit --customer acme --wallet main --amount 12.50 --charge-type usage \
         --feature search --partial --reference request-77 --reason call --meta team=a=b --meta n=",
    );
    assert_eq!(request.namespace, "default");
    assert_eq!(request.customer, "acme");
    assert_eq!(request.idempotency_key, "k-1");
    assert_eq!(request.valid_until, None);
    assert_eq!(request.amount, "12.50");
    assert_eq!(request.charge_type(), ChargeType::Usage);
    assert_eq!(request.feature, "search");
    assert!(request.allow_partial);
    assert_eq!(request.reference, "request-77");
    assert_eq!(request.reason_code, "call");
    let metadata: Vec<_> = request.metadata.into_iter().collect();
    let expected = [("n".to_owned(), String::new()), ("team".to_owned(), "a=b".to_owned())];
    assert_eq!(metadata, expected);
}

#[test]
fn a_dry_run_takes_no_key() {
    assert_eq!(
        refused("purser debit --customer acme --wallet main --amount 5 --explain --key k"),
        ErrorKind::ArgumentConflict
    );
}

#[test]
fn a_plain_grant_leaves_to_the_ledger_what_it_does_not_say() {
    let request = grant("purser grant --customer acme --wallet main --amount 100");
    assert_eq!(request.wallet, "main");
    let [tranche] = request.tranches.as_slice() else { panic!("one tranche") };
    assert_eq!(tranche.amount, "100");
    assert_eq!(tranche.kind(), TrancheKind::Promotional);
    assert_eq!(tranche.charge_scope(), ChargeScope::Any);
    assert_eq!(tranche.priority, None, "absent is another request than 100");
    assert_eq!(tranche.effective_at, None);
    assert_eq!(tranche.expiry, None);
    assert_eq!(tranche.cost_basis, None);
    assert!(!tranche.pending);
}

#[test]
fn every_flag_of_a_grant_reaches_the_request() {
    let request = grant(
        "purser grant --customer acme --wallet main --amount 500 --kind PURCHASED --priority 0 \
         --effective-at 2026-12-01T01:00:00+01:00 --expires-in '1 month' \
         --time-zone Europe/Berlin --scope fixed --feature a --feature b --label Winter \
         --reason sale --external-reference inv-1 --cost-basis '49.00 USD' --meta x=y",
    );
    let [tranche] = request.tranches.as_slice() else { panic!("one tranche") };
    assert_eq!(tranche.kind(), TrancheKind::Purchased);
    assert_eq!(tranche.priority, Some(0));
    let effective_at = tranche.effective_at.as_ref().map(times::rfc3339);
    assert_eq!(effective_at.as_deref(), Some("2026-12-01T00:00:00Z"));
    let lifetime = CalendarDuration { duration: "P1M".to_owned(), time_zone: "Europe/Berlin".to_owned() };
    assert_eq!(tranche.expiry, Some(Expiry::ExpiresIn(lifetime)));
    assert_eq!(tranche.charge_scope(), ChargeScope::Fixed);
    assert_eq!(tranche.features, ["a", "b"]);
    assert_eq!(tranche.label, "Winter");
    assert_eq!(tranche.reason_code, "sale");
    assert_eq!(tranche.external_reference, "inv-1");
    let paid = Money { currency: "USD".to_owned(), amount: "49.00".to_owned() };
    assert_eq!(tranche.cost_basis, Some(paid));
    assert_eq!(tranche.metadata.get("x").map(String::as_str), Some("y"));
}

#[test]
fn a_grant_has_one_end_and_a_zone_only_with_a_duration() {
    let plain = "purser grant --customer acme --wallet main --amount 1";
    assert_eq!(
        refused(&format!("{plain} --expires-at 2027-01-01 --expires-in 30d")),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(refused(&format!("{plain} --time-zone Europe/Berlin")), ErrorKind::MissingRequiredArgument);
}

#[test]
fn a_priority_is_at_most_1000() {
    let plain = "purser grant --customer acme --wallet main --amount 1";
    assert_eq!(grant(&format!("{plain} --priority 1000")).tranches[0].priority, Some(1000));
    assert_eq!(refused(&format!("{plain} --priority 1001")), ErrorKind::ValueValidation);
    assert_eq!(refused(&format!("{plain} --priority=-1")), ErrorKind::ValueValidation);
}

#[test]
fn a_key_is_made_up_anew_for_each_command_that_names_none() {
    let none = WriteArgs { key: None };
    assert_ne!(none.key(), none.key());
    assert_eq!(WriteArgs { key: Some("mine".to_owned()) }.key(), "mine");
}

#[test]
fn the_ledger_is_another_name_for_movements() {
    let line = read("purser ledger --customer acme --wallet main").expect("movements");
    assert!(matches!(line.command, ClientCommand::Movements(_)));
}

#[test]
fn global_flags_may_stand_before_and_after_the_command() {
    let line = read("purser -o json balance --customer acme --namespace staging --timeout 500ms")
        .expect("a balance");
    assert_eq!(line.globals.output, OutputFormat::Json);
    assert_eq!(line.globals.namespace, "staging");
    assert_eq!(line.globals.timeout.as_millis(), 500);
}

#[test]
fn the_words_of_flags_are_words_of_the_contract() {
    fn check<W: Word>(words: Words) {
        for word in words {
            assert!(words::from_flag::<W>(word).is_some(), "{} {word}", W::PREFIX);
        }
    }
    check::<TrancheKind>(words::TRANCHE_KINDS);
    check::<ChargeScope>(words::CHARGE_SCOPES);
    check::<ChargeType>(words::CHARGE_TYPES);
    check::<BurnPolicy>(words::BURN_POLICIES);
    check::<TrancheStatus>(words::TRANCHE_STATUSES);
    check::<WalletStatus>(words::WALLET_STATUSES);
    check::<MovementType>(words::MOVEMENT_TYPES);
    check::<HoldStatus>(words::HOLD_STATUSES);
}

#[test]
fn an_asset_is_a_code_and_a_scale() {
    assert_eq!(parse::asset("credits/0"), Ok(credits()));
    assert_eq!(parse::asset("usd/18").map(|asset| asset.scale), Ok(18));
    assert_eq!(text(parse::asset("usd/19")), "the scale is at most 18");
    for wrong in ["credits", "/0", "credits/", "credits/-1", "credits/x"] {
        assert!(text(parse::asset(wrong)).contains("code/scale"), "{wrong}");
    }
}

#[test]
fn an_amount_is_digits_with_an_optional_fraction() {
    for right in ["5", "12.5", "0", "007", "1.000000000000000000"] {
        assert_eq!(parse::amount(right).as_deref(), Ok(right));
    }
    for wrong in ["", "-5", "+5", "5.", ".5", "1e3", "1 000", "1,5", "１"] {
        assert!(parse::amount(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_correction_is_an_amount_with_an_optional_minus() {
    for right in ["100", "2.5", "-2.5", "-0", "-1.000000000000000000"] {
        assert_eq!(parse::signed_amount(right).as_deref(), Ok(right));
    }
    for wrong in ["", "-", "+5", "--5", "- 5", "-.5", "-5.", "-1e3", "−5", "--tranche"] {
        assert!(text(parse::signed_amount(wrong)).contains("a leading - for down"), "{wrong}");
    }
}

#[test]
fn a_duration_is_iso_8601_or_words_and_above_zero() {
    assert_eq!(parse::calendar_duration("P1M").as_deref(), Ok("P1M"));
    assert_eq!(parse::calendar_duration("30d").as_deref(), Ok("P30D"));
    assert_eq!(parse::calendar_duration("1 year").as_deref(), Ok("P1Y"));
    assert_eq!(parse::calendar_duration("12h").as_deref(), Ok("PT12H"));
    for wrong in ["", "0d", "-1d", "P", "a month", "30"] {
        assert!(parse::calendar_duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_time_has_an_offset_or_is_a_date_at_midnight_utc() {
    let shown = |text: &str| parse::instant(text).map(|time| times::rfc3339(&time));
    assert_eq!(shown("2026-12-01T09:30:00+01:00").as_deref(), Ok("2026-12-01T08:30:00Z"));
    assert_eq!(shown("2026-12-01").as_deref(), Ok("2026-12-01T00:00:00Z"));
    assert_eq!(shown("2026-12-01T00:00:00.000001Z").as_deref(), Ok("2026-12-01T00:00:00.000001Z"));
    for wrong in ["2026-12-01T09:30:00", "2026-12-01 09:30", "tomorrow", "2026-02-30", ""] {
        assert!(text(parse::instant(wrong)).contains("RFC 3339"), "{wrong}");
    }
}

#[test]
fn a_time_before_the_epoch_keeps_its_fraction() {
    let time: Timestamp = "1969-12-31T23:59:59.25Z".parse().expect("a time");
    let sent = times::to_proto(time);
    assert_eq!((sent.seconds, sent.nanos), (-1, 250_000_000));
    assert_eq!(times::rfc3339(&sent), "1969-12-31T23:59:59.25Z");
}

#[test]
fn a_time_out_is_above_zero() {
    assert_eq!(parse::timeout("1m").map(|time| time.as_secs()), Ok(60));
    for wrong in ["0s", "-1s", "10", "P1M", ""] {
        assert!(parse::timeout(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_time_to_live_is_above_zero_and_exact() {
    let parts = |text: &str| parse::ttl(text).map(|ttl| (ttl.seconds, ttl.nanos));
    assert_eq!(parts("90s"), Ok((90, 0)));
    assert_eq!(parts("5m"), Ok((300, 0)));
    assert_eq!(parts("24h"), Ok((86_400, 0)));
    assert_eq!(parts("1h 30m"), Ok((5_400, 0)));
    assert_eq!(parts("PT2M"), Ok((120, 0)));
    assert_eq!(parts("1500ms"), Ok((1, 500_000_000)));
    // Longer than the ledger allows: that is for the ledger to say.
    assert_eq!(parts("25h"), Ok((90_000, 0)));
    for wrong in ["", "0s", "-1s", "10", "soon", "P1M"] {
        assert!(text(parse::ttl(wrong)).contains("above zero"), "{wrong}");
    }
}

#[test]
fn a_grace_is_above_zero_and_its_days_have_24_hours() {
    let parts = |text: &str| parse::grace(text).map(|grace| (grace.seconds, grace.nanos));
    assert_eq!(parts("12h"), Ok((43_200, 0)));
    assert_eq!(parts("7d"), Ok((604_800, 0)));
    assert_eq!(parts("2w"), Ok((1_209_600, 0)));
    assert_eq!(parts("P1DT1H"), Ok((90_000, 0)));
    assert_eq!(parts("1500ms"), Ok((1, 500_000_000)));
    // Longer than the ledger allows: that is for the ledger to say.
    assert_eq!(parts("367d"), Ok((31_708_800, 0)));
    for wrong in ["", "0d", "-7d", "7", "P1M", "1 year", "soon"] {
        assert!(text(parse::grace(wrong)).contains("a grace is above zero"), "{wrong}");
    }
}

#[test]
fn a_pair_of_metadata_has_a_name() {
    assert_eq!(parse::pair("a=b"), Ok(("a".to_owned(), "b".to_owned())));
    assert!(parse::pair("=b").is_err());
    assert!(parse::pair("a").is_err());
}

#[test]
fn a_server_needs_no_scheme_and_no_other_than_http() {
    assert_eq!(parse::server_url("127.0.0.1:7480").as_deref(), Ok("http://127.0.0.1:7480"));
    assert_eq!(parse::server_url("http://node-1:7480").as_deref(), Ok("http://node-1:7480"));
    assert!(text(parse::server_url("https://node-1")).contains("http:// only"));
}

#[test]
fn a_month_on_the_clock_is_a_month_of_the_calendar() {
    let now = parse::instant("2026-01-31T12:00:00Z").expect("a time");
    let clock = GetClockResponse { now: Some(now), test_clock: true };
    let month = parse::calendar_span("P1M").expect("a month");
    let later = clock::later(&clock, month).expect("a time");
    assert_eq!(times::rfc3339(&later), "2026-02-28T12:00:00Z");
}

#[test]
fn a_clock_that_would_leave_the_calendar_is_a_wrong_flag() {
    let now = parse::instant("2026-01-31T12:00:00Z").expect("a time");
    let clock = GetClockResponse { now: Some(now), test_clock: true };
    let ages = parse::calendar_span("9000 years").expect("a duration");
    assert!(matches!(clock::later(&clock, ages), Err(Failure::Usage(_))));
}
