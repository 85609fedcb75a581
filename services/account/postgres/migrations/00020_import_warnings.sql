-- +goose Up
ALTER TABLE contact_imports ADD COLUMN warnings jsonb NOT NULL DEFAULT '[]';
