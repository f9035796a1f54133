-- What the ledger does: one call is one transaction. README.md says why it is done so.
--
-- Outcomes: A applied, I insufficient credits (both are verdicts, remembered under their key);
-- N there is no such wallet, R the key was used for another request (nothing is remembered of them).

CREATE TYPE receipt AS (
    outcome   "char",
    replayed  boolean,
    movement  bigint,
    balance   bigint,
    -- What was drawn of which tranches in burn order, and what is left in each.
    tranches  integer[],
    drawn     bigint[],
    left_over bigint[]
);

CREATE FUNCTION create_wallet(customer_name text, wallet_name text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owner bigint;
BEGIN
    INSERT INTO customers (name) VALUES (customer_name) ON CONFLICT DO NOTHING;
    SELECT c.id INTO owner FROM customers c WHERE c.name = customer_name;
    INSERT INTO wallets (customer, name) VALUES (owner, wallet_name);
END $$;

-- The answer to a key that is known: the first one again, or a refusal if it was another request.
CREATE FUNCTION replay(
    known verdicts, operation "char", wallet bigint, amount bigint, details bytea, OUT given receipt
) LANGUAGE plpgsql AS $$
BEGIN
    IF (known.operation, known.wallet, known.amount) <> (operation, wallet, amount)
        OR known.details IS DISTINCT FROM details
    THEN
        given.outcome := 'R';
        RETURN;
    END IF;
    given.outcome := known.outcome;
    given.replayed := true;
    given.movement := known.movement;
    given.balance := known.balance;
    SELECT m.tranches, m.drawn, m.left_over INTO given.tranches, given.drawn, given.left_over
    FROM movements m WHERE m.wallet = known.wallet AND m.number = known.movement;
END $$;

-- Adds tranches, one for each place of the arrays, effective now.
CREATE FUNCTION grant_tranches(
    customer_name text, wallet_name text, request_key text,
    amounts bigint[], priorities smallint[], kinds smallint[], expiries timestamptz[],
    OUT given receipt
) LANGUAGE plpgsql AS $$
DECLARE
    own     record;
    known   verdicts;
    details bytea := sha256(convert_to(concat_ws(';', amounts, priorities, kinds, expiries), 'UTF8'));
    total   bigint := (SELECT sum(a) FROM unnest(amounts) a);
BEGIN
    SELECT w.customer, w.id, w.balance, w.movements + 1 AS movement, w.tranches INTO own
    FROM customers c JOIN wallets w ON w.customer = c.id
    WHERE c.name = customer_name AND w.name = wallet_name
    FOR NO KEY UPDATE OF w;
    IF NOT FOUND THEN
        given.outcome := 'N';
        RETURN;
    END IF;
    SELECT * INTO known FROM verdicts v WHERE v.customer = own.customer AND v.key = request_key;
    IF FOUND THEN
        given := replay(known, 'G', own.id, total, details);
        RETURN;
    END IF;

    INSERT INTO tranches (wallet, number, amount, available, effective_at, expires_at, priority, kind)
    SELECT own.id, own.tranches + t.place, t.amount, t.amount, now(), t.expires_at, t.priority, t.kind
    FROM unnest(amounts, priorities, kinds, expiries)
        WITH ORDINALITY AS t (amount, priority, kind, expires_at, place);
    UPDATE wallets w
    SET balance = w.balance + total, movements = own.movement, tranches = w.tranches + cardinality(amounts)
    WHERE w.id = own.id;
    INSERT INTO movements VALUES
        (own.id, own.movement, total, own.balance, own.balance + total, now(), 'G', request_key, '{}', '{}', '{}');
    INSERT INTO verdicts VALUES
        (own.customer, own.id, total, own.movement, own.balance + total, now(), 'G', 'A', request_key, details);
    given := ('A', false, own.movement, own.balance + total, '{}', '{}', '{}')::receipt;
END $$;

-- Debits one wallet: all or nothing, in burn order.
--
-- The first statement locks the wallet and debits its balance in one: that is what nearly all calls
-- need. It looks at keys as they were when it began, so of two calls under one key at the same moment
-- the second fails on the key's uniqueness, changes nothing, and finds the verdict when it is sent again.
CREATE FUNCTION debit(
    customer_name text, wallet_name text, request_key text, asked bigint, OUT given receipt
) LANGUAGE plpgsql AS $$
DECLARE
    own       record;
    known     verdicts;
    tranche   record;
    judged_at timestamptz := now();
    rest      bigint := asked;
    taken     bigint;
    numbers   integer[] := '{}';
    drawn     bigint[] := '{}';
    left_over bigint[] := '{}';
BEGIN
    IF asked IS NULL OR asked <= 0 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'an amount is above zero';
    END IF;
    LOOP
        UPDATE wallets w SET balance = w.balance - asked, movements = w.movements + 1
        FROM customers c
        WHERE c.name = customer_name AND w.customer = c.id AND w.name = wallet_name AND w.balance >= asked
            AND NOT EXISTS (SELECT FROM verdicts v WHERE v.customer = c.id AND v.key = request_key)
        RETURNING w.customer, w.id, w.balance, w.movements AS movement INTO own;
        EXIT WHEN FOUND;

        SELECT w.customer, w.id, w.balance INTO own
        FROM customers c JOIN wallets w ON w.customer = c.id
        WHERE c.name = customer_name AND w.name = wallet_name
        FOR NO KEY UPDATE OF w;
        IF NOT FOUND THEN
            given.outcome := 'N';
            RETURN;
        END IF;
        SELECT * INTO known FROM verdicts v WHERE v.customer = own.customer AND v.key = request_key;
        IF FOUND THEN
            given := replay(known, 'D', own.id, asked, NULL);
            RETURN;
        END IF;
        IF own.balance < asked THEN
            INSERT INTO verdicts VALUES
                (own.customer, own.id, asked, NULL, own.balance, judged_at, 'D', 'I', request_key, NULL);
            given := ('I', false, NULL, own.balance, NULL, NULL, NULL)::receipt;
            RETURN;
        END IF;
        -- It was refilled between the two statements.
    END LOOP;

    FOR tranche IN
        SELECT t.number, t.available FROM tranches t
        WHERE t.wallet = own.id AND t.live AND t.effective_at <= judged_at AND t.expires_at > judged_at
        ORDER BY t.priority, t.expires_at, t.kind, t.narrowness, t.effective_at, t.number
    LOOP
        taken := least(rest, tranche.available);
        numbers := numbers || tranche.number;
        drawn := drawn || taken;
        left_over := left_over || tranche.available - taken;
        rest := rest - taken;
        EXIT WHEN rest = 0;
    END LOOP;
    IF rest > 0 THEN
        -- Part of the balance has expired, and no sweep has booked it yet: the balance goes back.
        UPDATE wallets w SET balance = w.balance + asked, movements = w.movements - 1 WHERE w.id = own.id;
        INSERT INTO verdicts VALUES
            (own.customer, own.id, asked, NULL, own.balance + asked, judged_at, 'D', 'I', request_key, NULL);
        given := ('I', false, NULL, own.balance + asked, NULL, NULL, NULL)::receipt;
        RETURN;
    END IF;

    FOR place IN 1..cardinality(numbers) LOOP
        UPDATE tranches t SET available = left_over[place], live = left_over[place] > 0
        WHERE t.wallet = own.id AND t.number = numbers[place];
    END LOOP;
    INSERT INTO movements VALUES
        (own.id, own.movement, -asked, own.balance + asked, own.balance, judged_at, 'C', request_key,
        numbers, drawn, left_over);
    INSERT INTO verdicts VALUES
        (own.customer, own.id, asked, own.movement, own.balance, judged_at, 'D', 'A', request_key, NULL);
    given := ('A', false, own.movement, own.balance, numbers, drawn, left_over)::receipt;
END $$;

-- Many debits, each with its own receipt, in the order asked; as if one by one in that order.
--
-- All wallets are locked first, in one order, so that two calls never wait for one another in a circle.
-- Wallets that can pay all that is asked of them, under keys that are new, are done together: the
-- debits of a wallet laid end to end, and its tranches laid end to end, overlap where one draws from
-- the other. Whatever is left (short, replayed, unknown) goes one by one: wallets do not depend on one
-- another, and a wallet is done in one of both ways as a whole.
CREATE FUNCTION debit_batch(
    customer_names text[], wallet_names text[], request_keys text[], amounts bigint[]
) RETURNS SETOF receipt
LANGUAGE plpgsql AS $$
DECLARE
    judged_at timestamptz := now();
    locked    record;
    one       record;
BEGIN
    IF array_position(amounts, NULL) IS NOT NULL OR 0 >= ANY (amounts) THEN
        RAISE invalid_parameter_value USING MESSAGE = 'an amount is above zero';
    END IF;
    SELECT array_agg(l.place) AS places, array_agg(l.customer) AS customers, array_agg(l.wallet) AS wallets,
        array_agg(l.balance) AS balances, array_agg(l.movements) AS movements
    INTO locked
    FROM (
        SELECT a.place, w.customer, w.id AS wallet, w.balance, w.movements
        FROM unnest(customer_names, wallet_names) WITH ORDINALITY AS a (customer, wallet, place)
        JOIN customers c ON c.name = a.customer
        JOIN wallets w ON w.customer = c.id AND w.name = a.wallet
        ORDER BY w.id, a.place
        FOR NO KEY UPDATE OF w
    ) l;

    FOR one IN
        WITH asked AS MATERIALIZED (
            SELECT a.*, request_keys[a.place] AS key, amounts[a.place] AS amount,
                EXISTS (
                    SELECT FROM verdicts v WHERE v.customer = a.customer AND v.key = request_keys[a.place]
                ) AS known
            FROM unnest(locked.places, locked.customers, locked.wallets, locked.balances, locked.movements)
                AS a (place, customer, wallet, balance, movements)
        ), laid AS (
            -- In its wallet a debit is the nth and reaches up to so many credits; all need so many.
            SELECT a.*,
                row_number() OVER in_wallet AS nth,
                (sum(a.amount) OVER in_wallet)::bigint AS upto,
                (sum(a.amount) OVER (PARTITION BY a.wallet))::bigint AS needed,
                bool_or(a.known) OVER (PARTITION BY a.wallet)
                    OR cardinality(request_keys) > keys.different AS one_by_one
            FROM asked a, (SELECT count(DISTINCT (b.customer, b.key)) AS different FROM asked b) keys
            WINDOW in_wallet AS (PARTITION BY a.wallet ORDER BY a.place)
        ), judged AS MATERIALIZED (
            SELECT l.*, d.*
            FROM laid l LEFT JOIN LATERAL (
                -- The index gives burn order, and aggregates keep the order of what they are given.
                SELECT array_agg(t.number) AS numbers,
                    array_agg(least(t.upto, l.upto) - greatest(t.upto - t.available, l.upto - l.amount)) AS drawn,
                    array_agg(t.upto - least(t.upto, l.upto)) AS left_over,
                    max(t.total) AS total
                FROM (
                    SELECT o.number, o.available,
                        (sum(o.available) OVER (ROWS UNBOUNDED PRECEDING))::bigint AS upto,
                        (sum(o.available) OVER ())::bigint AS total
                    FROM (
                        SELECT t.number, t.available FROM tranches t
                        WHERE t.wallet = l.wallet AND t.live
                            AND t.effective_at <= judged_at AND t.expires_at > judged_at
                        ORDER BY t.priority, t.expires_at, t.kind, t.narrowness, t.effective_at, t.number
                    ) o
                ) t
                WHERE t.upto > l.upto - l.amount AND t.upto - t.available < l.upto
            ) d ON l.needed <= l.balance AND NOT l.one_by_one
        ), applied AS MATERIALIZED (
            SELECT j.*, j.movements + j.nth AS movement, j.balance - j.upto AS balance_after
            FROM judged j WHERE j.total >= j.needed
        ), drawn AS (
            UPDATE tranches t SET available = d.left_over, live = d.left_over > 0
            FROM (
                SELECT a.wallet, e.number, min(e.left_over) AS left_over
                FROM applied a, unnest(a.numbers, a.left_over) AS e (number, left_over)
                GROUP BY a.wallet, e.number
            ) d
            WHERE t.wallet = d.wallet AND t.number = d.number
        ), debited AS (
            UPDATE wallets w SET balance = w.balance - d.needed, movements = w.movements + d.count
            FROM (SELECT a.wallet, a.needed, count(*) AS count FROM applied a GROUP BY a.wallet, a.needed) d
            WHERE w.id = d.wallet
        ), booked AS (
            INSERT INTO movements
            SELECT a.wallet, a.movement, -a.amount, a.balance_after + a.amount, a.balance_after, judged_at,
                'C', a.key, a.numbers, a.drawn, a.left_over
            FROM applied a
        ), remembered AS (
            INSERT INTO verdicts
            SELECT a.customer, a.wallet, a.amount, a.movement, a.balance_after, judged_at, 'D', 'A', a.key, NULL
            FROM applied a
        )
        SELECT p.place, coalesce(j.total >= j.needed, false) AS done,
            ('A', false, j.movements + j.nth, j.balance - j.upto, j.numbers, j.drawn, j.left_over)::receipt AS given
        FROM generate_subscripts(request_keys, 1) AS p (place) LEFT JOIN judged j USING (place)
        ORDER BY p.place
    LOOP
        IF one.done THEN
            RETURN NEXT one.given;
        ELSE
            RETURN NEXT debit(
                customer_names[one.place], wallet_names[one.place], request_keys[one.place], amounts[one.place]
            );
        END IF;
    END LOOP;
END $$;

-- What a customer can spend now.
CREATE FUNCTION available_to(customer_name text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(t.available), 0)::bigint
    FROM customers c JOIN wallets w ON w.customer = c.id JOIN tranches t ON t.wallet = w.id
    WHERE c.name = customer_name AND t.live AND t.effective_at <= now() AND t.expires_at > now()
$$;
