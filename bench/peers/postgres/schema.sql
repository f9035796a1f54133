-- A prepaid-credits ledger in PostgreSQL: what stands in the tables. The work is done by the functions
-- in functions.sql; README.md says why each of this is as it is.
--
-- What always holds, between transactions:
--   wallets.balance = the sum of its tranches' "available" = the sum of its movements' "amount";
--   0 <= available <= amount in each tranche, and "live" says whether any is left;
--   movements are numbered 1, 2, 3... in each wallet, each beginning where the one before ended.
-- Everything of a wallet changes under the lock of its row.

CREATE TABLE customers (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- Every debit rewrites a row: room in each page keeps the new version beside the old one (HOT).
CREATE TABLE wallets (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer  bigint  NOT NULL,
    name      text    NOT NULL,
    balance   bigint  NOT NULL DEFAULT 0 CHECK (balance >= 0),
    -- The numbers of its last movement and its last tranche.
    movements bigint  NOT NULL DEFAULT 0,
    tranches  integer NOT NULL DEFAULT 0,
    UNIQUE (customer, name)
) WITH (fillfactor = 40);

-- "kind" and "narrowness" are numbers in burn order: free before paid, narrow before any.
CREATE TABLE tranches (
    wallet       bigint      NOT NULL,
    number       integer     NOT NULL,
    amount       bigint      NOT NULL CHECK (amount > 0),
    available    bigint      NOT NULL CHECK (available BETWEEN 0 AND amount),
    effective_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL DEFAULT 'infinity',
    priority     smallint    NOT NULL DEFAULT 100,
    kind         smallint    NOT NULL,
    narrowness   smallint    NOT NULL DEFAULT 0,
    -- In the index below stands this instead of "available > 0", so that a draw that leaves something
    -- touches no indexed column and is a HOT update.
    live         boolean     NOT NULL DEFAULT true CHECK (live = (available > 0)),
    PRIMARY KEY (wallet, number)
) WITH (fillfactor = 70);

-- The burn order of a wallet. Exhausted tranches are not in it: they cost a debit nothing.
CREATE INDEX tranches_in_burn_order
    ON tranches (wallet, priority, expires_at, kind, narrowness, effective_at, number) WHERE live;

-- The ledger: only ever inserted. Draws stand in three arrays of one length.
CREATE TABLE movements (
    wallet         bigint      NOT NULL,
    number         bigint      NOT NULL,
    amount         bigint      NOT NULL,
    balance_before bigint      NOT NULL,
    balance_after  bigint      NOT NULL CHECK (balance_after = balance_before + amount),
    booked_at      timestamptz NOT NULL,
    type           "char"      NOT NULL, -- G granted, C consumed
    key            text        NOT NULL,
    tranches       integer[]   NOT NULL,
    drawn          bigint[]    NOT NULL,
    left_over      bigint[]    NOT NULL,
    PRIMARY KEY (wallet, number)
);

-- The verdict once given for a key of a customer. A denial has no movement.
CREATE TABLE verdicts (
    customer  bigint      NOT NULL,
    wallet    bigint      NOT NULL,
    amount    bigint      NOT NULL,
    movement  bigint,
    balance   bigint      NOT NULL,
    judged_at timestamptz NOT NULL,
    operation "char"      NOT NULL, -- G grant, D debit
    outcome   "char"      NOT NULL, -- A applied, I insufficient credits
    key       text        NOT NULL,
    -- What else the request said (grants).
    details   bytea,
    PRIMARY KEY (customer, key)
);
