/** A commented configuration to start from: every line that is not needed is a comment. `schema` is the path for editors. */
export function starterFile(schema: string): string {
  return `# yaml-language-server: $schema=${schema}
#
# Layover. Nothing here is needed: what is left out has the default that stands in the comment.
# Every key also has a variable, such as LAYOVER_DATA_DIR; docs/config.md has them all.
# Look it over with: layover config check

# Where container runtimes pull from, and where the status page, /metrics, /livez, /readyz and /status are.
listen: 0.0.0.0:5000
admin: 127.0.0.1:5001

# Relative paths start at the directory of this file.
dataDir: ./data
storage:
  maxBytes: 50GiB

upstreams:
  # Built in: docker.io (default), ghcr.io, quay.io, registry.k8s.io, gcr.io, public.ecr.aws, mcr.microsoft.com,
  # registry.gitlab.com, lscr.io, nvcr.io. Change single keys of them here, or remove one: "nvcr.io: false".
  docker.io:
    tagTtl: 5m # a tag is served this long without asking
    maxStale: 7d # … and this long when the registry cannot answer
    # username: me
    # passwordFile: /run/secrets/dockerhub # or passwordEnv: DOCKERHUB_TOKEN

  # registry.example.com:
  #   url: https://registry.example.com
  #   mirrors: [https://mirror.example.com] # the same content, to fall over to
  #   username: ci
  #   passwordFile: /run/secrets/registry
  #   ca: /etc/ssl/own.pem
  #   realmHosts: [auth.example.net] # who else may issue its tokens
  #   redirectHosts: [minio.internal:9000] # private hosts that its redirects may point at
  #   insecure: false # true: http or unverified TLS

# A docker config.json with the credentials of every upstream that has none of its own.
# dockerConfig: /run/secrets/config.json

# What a pulled manifest fetches ahead: off, config (its small config blob), all (its layers too).
prefetch: off

# true: never ask an upstream.
offline: false

# Many replicas, one cache: docs/distributed.md.
# s3: { bucket: layover, endpoint: "http://127.0.0.1:9000", pathStyle: true } # AWS: bucket and region
# hotTier: { maxBytes: 20GiB } # on this disk, beside the bucket
# redis: { url: "redis://127.0.0.1:6379/0" }
# replica: { url: "http://10.0.0.5:5002", secretFile: /run/secrets/replica } # how the others reach this one

# How long a stop waits for running responses.
drain: 5m

log:
  level: info
  access: true # one line per request
`
}
