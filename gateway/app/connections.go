package app

import "github.com/turumba/turumba/gateway/rest"

// maxConnections is the most connections of the listener.
const maxConnections = 2 * rest.MaxStreams

// connections is how many connections may be open, and how many of them may be streams:
// a quarter is always left for other requests. An eighth of the files that the process
// may have is left for the services' connections and the rest. More connections wait in
// the listen backlog, more streams are refused.
func connections(files uint64) (all, streams int) {
	all = int(min(maxConnections, files-files/8))
	return all, min(rest.MaxStreams, all-all/4)
}
