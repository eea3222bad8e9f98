import packageJson from '../../package.json' with { type: 'json' }

/** How Layover names itself to upstreams. */
export const userAgent = `layover/${packageJson.version}`
