-- Whatever does not add up, in words; no rows when all is well.

CREATE FUNCTION faults() RETURNS SETOF text LANGUAGE sql STABLE AS $$
    WITH held AS (
        SELECT t.wallet, sum(t.amount) AS granted, sum(t.available) AS available FROM tranches t GROUP BY 1
    ), moved AS (
        SELECT m.wallet, count(*) AS count, max(m.number) AS last, sum(m.amount) AS balance,
            sum(m.amount) FILTER (WHERE m.type = 'G') AS granted,
            -sum(m.amount) FILTER (WHERE m.type = 'C') AS debited
        FROM movements m GROUP BY 1
    ), chained AS (
        SELECT m.*, lag(m.balance_after, 1, 0::bigint) OVER (PARTITION BY m.wallet ORDER BY m.number) AS before
        FROM movements m
    ), drawn AS (
        SELECT m.wallet, d.number, sum(d.drawn) AS drawn
        FROM movements m, unnest(m.tranches, m.drawn) AS d (number, drawn) GROUP BY 1, 2
    )
    SELECT format('wallet %s: balance %s, in tranches %s, by movements %s', w.id, w.balance, h.available, m.balance)
    FROM wallets w LEFT JOIN held h ON h.wallet = w.id LEFT JOIN moved m ON m.wallet = w.id
    WHERE w.balance <> coalesce(h.available, 0) OR w.balance <> coalesce(m.balance, 0)
        OR h.granted <> coalesce(m.debited, 0) + h.available OR h.granted <> m.granted
    UNION ALL
    SELECT format('wallet %s: its last movement is %s, there are %s', w.id, w.movements, coalesce(m.count, 0))
    FROM wallets w LEFT JOIN moved m ON m.wallet = w.id
    WHERE w.movements <> coalesce(m.count, 0) OR w.movements <> coalesce(m.last, 0)
    UNION ALL
    SELECT format('movement %s of wallet %s begins at %s instead of %s', c.number, c.wallet, c.balance_before, c.before)
    FROM chained c WHERE c.balance_before <> c.before
    UNION ALL
    SELECT format('tranche %s of wallet %s: %s of %s left, %s drawn', t.number, t.wallet, t.available, t.amount, d.drawn)
    FROM tranches t LEFT JOIN drawn d USING (wallet, number)
    WHERE t.available <> t.amount - coalesce(d.drawn, 0)
    UNION ALL
    SELECT format('movement %s of wallet %s takes %s and draws otherwise', m.number, m.wallet, -m.amount)
    FROM movements m
    WHERE m.type = 'C' AND -m.amount <> (SELECT sum(d) FROM unnest(m.drawn) AS d)
    UNION ALL
    SELECT format('key %s of customer %s: verdict and movement differ', v.key, v.customer)
    FROM verdicts v LEFT JOIN movements m ON m.wallet = v.wallet AND m.number = v.movement
    WHERE (v.outcome = 'A') <> (m.number IS NOT NULL)
        OR m.key <> v.key OR abs(m.amount) <> v.amount OR m.balance_after <> v.balance
    UNION ALL
    SELECT format('%s movements have no verdict', count(*))
    FROM movements m JOIN wallets w ON w.id = m.wallet
        LEFT JOIN verdicts v ON v.customer = w.customer AND v.key = m.key
    WHERE v.key IS NULL HAVING count(*) > 0
$$;
