-- +goose Up
-- The ids of a send's messages have its start inside, so the primary key has them side by
-- side: a send need not be in the index of lists as well, which took a sixth of what it
-- costs to write a message. Single messages have messages_single_listed.
CREATE FUNCTION uuid7_first(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex((date_part('epoch', at) * 1000)::int8), 12, '0') || '00000000000000000000')::uuid;
CREATE FUNCTION uuid7_last(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex((date_part('epoch', at) * 1000)::int8), 12, '0') || 'ffffffffffffffffffff')::uuid;
DROP INDEX messages_listed;
