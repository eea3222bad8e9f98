# docker build -t registry.example.com/layover:0.1.0 .
#
# BUILD_BASE installs the dependencies, BASE runs them: Node 26 in the PATH below is all that it needs, no shell and no package manager.
# Where the defaults cannot be pulled, name others:    --build-arg BASE=node:26-trixie-slim
# For the same image again, name them by their digest: --build-arg BASE=gcr.io/distroless/nodejs26-debian13@sha256:… (docs: deploy/README.md)
ARG BUILD_BASE=node:26-trixie-slim
ARG BASE=gcr.io/distroless/nodejs26-debian13:nonroot

FROM ${BUILD_BASE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# No script of a dependency runs, neither here nor later.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && mkdir /data

FROM ${BASE}
LABEL org.opencontainers.image.title="Layover" \
      org.opencontainers.image.description="A pull-through caching proxy for container registries" \
      org.opencontainers.image.licenses="Apache-2.0"
# distroless keeps node in /nodejs/bin, the Debian images in /usr/local/bin.
# Compiled code is kept in /tmp where that can be written, which saves each start some time and memory; without it, nothing is kept.
ENV PATH=/nodejs/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    NODE_ENV=production \
    XDG_CACHE_HOME=/tmp \
    LAYOVER_DATA_DIR=/data
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json LICENSE ./
# Node runs the TypeScript files as they are: there is no build step.
COPY src ./src
# A new named volume takes its owner from here.
COPY --from=dependencies --chown=65532:65532 /data /data
USER 65532:65532
VOLUME /data

# 5000 is the registry, 5002 answers other replicas where there are some. 5001 is the admin listener (/metrics, /readyz, /status): it listens on
# 127.0.0.1 inside of the container, where only the health check reaches it. LAYOVER_ADMIN=0.0.0.0:5001 opens it to the container's network. It
# has no authentication: do that only where that network is yours, and do not publish the port to others.
EXPOSE 5000 5001

HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["node", "/app/src/main.ts", "healthcheck"]
ENTRYPOINT ["node", "/app/src/main.ts"]
CMD ["serve"]
