/**
 * The embedded index. Each entry takes the database one version up; entries that were released never change.
 *
 * Counters are kept by triggers in the transaction that changes the rows: nothing is summed up at start, however much is cached.
 * `INSERT OR REPLACE` runs no delete triggers, so counted tables are written by upsert.
 * Only blobs in state `present` are visible and counted. The other states are what a process that was killed leaves behind.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE counters (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    blobs INTEGER NOT NULL,
    blob_bytes INTEGER NOT NULL,
    manifests INTEGER NOT NULL,
    manifest_bytes INTEGER NOT NULL,
    documents INTEGER NOT NULL,
    document_bytes INTEGER NOT NULL
  ) STRICT;
  INSERT INTO counters VALUES (1, 0, 0, 0, 0, 0, 0);

  CREATE TABLE runs (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot TEXT NOT NULL,
    ended INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('publishing', 'present', 'deleting'))
  ) STRICT;
  CREATE UNIQUE INDEX blobs_by_digest ON blobs (digest);
  CREATE INDEX blobs_by_use ON blobs (last_used) WHERE state = 'present';
  CREATE INDEX blobs_unsettled ON blobs (state) WHERE state <> 'present';

  CREATE TRIGGER blob_added AFTER INSERT ON blobs WHEN NEW.state = 'present' BEGIN
    UPDATE counters SET blobs = blobs + 1, blob_bytes = blob_bytes + NEW.size WHERE id = 1;
  END;
  CREATE TRIGGER blob_removed AFTER DELETE ON blobs WHEN OLD.state = 'present' BEGIN
    UPDATE counters SET blobs = blobs - 1, blob_bytes = blob_bytes - OLD.size WHERE id = 1;
  END;
  CREATE TRIGGER blob_changed AFTER UPDATE OF state, size ON blobs BEGIN
    UPDATE counters SET
      blobs = blobs + (NEW.state = 'present') - (OLD.state = 'present'),
      blob_bytes = blob_bytes + (NEW.state = 'present') * NEW.size - (OLD.state = 'present') * OLD.size
    WHERE id = 1;
  END;

  CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    bytes BLOB NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX manifests_by_digest ON manifests (digest);
  CREATE INDEX manifests_by_use ON manifests (last_used);

  CREATE TRIGGER manifest_added AFTER INSERT ON manifests BEGIN
    UPDATE counters SET manifests = manifests + 1, manifest_bytes = manifest_bytes + NEW.size WHERE id = 1;
  END;
  CREATE TRIGGER manifest_removed AFTER DELETE ON manifests BEGIN
    UPDATE counters SET manifests = manifests - 1, manifest_bytes = manifest_bytes - OLD.size WHERE id = 1;
  END;
  CREATE TRIGGER manifest_changed AFTER UPDATE OF size ON manifests BEGIN
    UPDATE counters SET manifest_bytes = manifest_bytes + NEW.size - OLD.size WHERE id = 1;
  END;

  CREATE TABLE tags (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    checked_at INTEGER NOT NULL,
    PRIMARY KEY (upstream, repository, tag)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE links (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    link TEXT NOT NULL CHECK (link IN ('named', 'confirmed')),
    PRIMARY KEY (upstream, repository, digest)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX links_confirmed ON links (upstream, digest) WHERE link = 'confirmed';

  CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    attributes TEXT NOT NULL,
    bytes BLOB NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX documents_by_key ON documents (key);
  CREATE INDEX documents_by_age ON documents (stored_at);

  CREATE TRIGGER document_added AFTER INSERT ON documents BEGIN
    UPDATE counters SET documents = documents + 1, document_bytes = document_bytes + NEW.size WHERE id = 1;
  END;
  CREATE TRIGGER document_removed AFTER DELETE ON documents BEGIN
    UPDATE counters SET documents = documents - 1, document_bytes = document_bytes - OLD.size WHERE id = 1;
  END;
  CREATE TRIGGER document_changed AFTER UPDATE OF size ON documents BEGIN
    UPDATE counters SET document_bytes = document_bytes + NEW.size - OLD.size WHERE id = 1;
  END;
  `,
  `
  -- Links get an age: their id. Renaming first and dropping last leaves no rewritten text in the schema, which is compared at start.
  ALTER TABLE links RENAME TO links_before;
  CREATE TABLE links (
    id INTEGER PRIMARY KEY,
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    link TEXT NOT NULL CHECK (link IN ('named', 'confirmed'))
  ) STRICT;
  CREATE UNIQUE INDEX links_by_name ON links (upstream, repository, digest);
  INSERT INTO links (upstream, repository, digest, link) SELECT upstream, repository, digest, link FROM links_before;
  DROP TABLE links_before;
  CREATE INDEX links_confirmed ON links (upstream, digest) WHERE link = 'confirmed';
  CREATE INDEX tags_by_check ON tags (checked_at);

  CREATE TEMP TABLE counters_before AS SELECT * FROM main.counters;
  DROP TABLE main.counters;
  CREATE TABLE main.counters (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    blobs INTEGER NOT NULL,
    blob_bytes INTEGER NOT NULL,
    manifests INTEGER NOT NULL,
    manifest_bytes INTEGER NOT NULL,
    documents INTEGER NOT NULL,
    document_bytes INTEGER NOT NULL,
    links INTEGER NOT NULL,
    tags INTEGER NOT NULL
  ) STRICT;
  INSERT INTO main.counters
    SELECT id, blobs, blob_bytes, manifests, manifest_bytes, documents, document_bytes,
      (SELECT count(*) FROM links), (SELECT count(*) FROM tags)
    FROM temp.counters_before;
  DROP TABLE temp.counters_before;

  CREATE TRIGGER link_added AFTER INSERT ON links BEGIN
    UPDATE counters SET links = links + 1 WHERE id = 1;
  END;
  CREATE TRIGGER link_removed AFTER DELETE ON links BEGIN
    UPDATE counters SET links = links - 1 WHERE id = 1;
  END;
  CREATE TRIGGER tag_added AFTER INSERT ON tags BEGIN
    UPDATE counters SET tags = tags + 1 WHERE id = 1;
  END;
  CREATE TRIGGER tag_removed AFTER DELETE ON tags BEGIN
    UPDATE counters SET tags = tags - 1 WHERE id = 1;
  END;
  `,
  `
  -- Figures by period (a month, a day or an hour in UTC) and name; see totals.ts.
  CREATE TABLE totals (
    period TEXT NOT NULL,
    name TEXT NOT NULL,
    amount REAL NOT NULL,
    PRIMARY KEY (period, name)
  ) STRICT, WITHOUT ROWID;
  `,
]
