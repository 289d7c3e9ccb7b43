from ostoja.app import app

app(prog_name="ostoja")
