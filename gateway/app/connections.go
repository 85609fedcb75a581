package app

import "github.com/turumba/turumba/gateway/rest"

// maxConnections is the most connections of the listener. Streams take half of them at
// the most, so that there is always room for other requests.
const maxConnections = 2 * rest.MaxStreams

// connections is how many connections may be open: a quarter of the files that the
// process may have is left for the services' connections and the rest. More wait in the
// listen backlog.
func connections() int {
	return int(min(maxConnections, openFiles()/4*3))
}
