from ostoja.app import main

main()
