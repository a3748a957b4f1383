package main

// excuse is what an agent's farewell comes to while the server lives, which is in maintenance
// mode only: the keeper stays as long as the server does (S4), and not longer, unless another
// agent attaches before. What the server is restarted by then is somebody else's, Patroni's
// perhaps, whose new postmaster must not meet a keeper that clears the data directory out.
//
// A server with a deadline is another matter: it stays guarded to its end.
func (g *guard) excuse() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != running || g.armed != nil {
		return
	}
	g.excused = true
	g.log.Info("the agent has left: this keeper ends with its server", "pid", g.pid)
}

// retire ends an excused keeper. The postmaster is gone; what a clean exit may leave, the
// logging collector's last lines, needs nobody. After another exit of a server that was the
// keeper's own, the killer has been through before. Called with mu held.
func (g *guard) retire() {
	g.log.Info("the server that this keeper was left with has ended")
	g.phase, g.pid, g.closed = down, 0, true
	g.leave()
}
