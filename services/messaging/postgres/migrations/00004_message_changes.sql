-- +goose Up
-- A deleted message is hidden; it stays for the counters of its send.
ALTER TABLE messages ADD COLUMN deleted_at timestamptz;

-- A cancel tells the worker that has the chunk, a retry waits in the queue.
GRANT SELECT (withdrawn), UPDATE (withdrawn) ON dispatch_chunks TO turumba_api;
GRANT INSERT ON message_due TO turumba_api;
