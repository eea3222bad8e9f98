/**
 * Registries that work without a configuration file, in file form. Each can be overridden key by key, or removed by `<name>: false`.
 * `docker.io` is the name in image references; its API lives at another host (P-21).
 */
export const builtinUpstreams: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'docker.io': {
    url: 'https://registry-1.docker.io',
    default: true,
    aliases: ['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com'],
  },
  'ghcr.io': {},
  'quay.io': {},
  'registry.k8s.io': {},
  'gcr.io': {},
  'public.ecr.aws': {},
  'mcr.microsoft.com': {},
  'registry.gitlab.com': {},
  // lscr.io is a front of ghcr.io and names ghcr.io as the issuer of its tokens.
  'lscr.io': { realmHosts: ['ghcr.io'] },
  'nvcr.io': {},
}
